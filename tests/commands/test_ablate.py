"""`detlab ablate` without running anything: what it plans, refuses, previews, launches and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detlab.commands.ablate as command
from detlab.commands import preview
from detlab.commands.ablate import answer, look_table, main, read_request
from detlab.commands.preview import Probe
from detlab.commands.train import show_sweep, shows_sweep
from detlab.config.ablation import plan_ablation
from detlab.config.sweep_name import sweep_name
from detlab.errors import ConfigError
from detlab.report.planned import FILE
from detlab.report.results import Measured
from detlab.report.rounds import looks
from detlab.sweeps.slots import thread_share


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETLAB_OUTPUTS", str(tmp_path))
    return tmp_path


def test_a_plan_is_the_sweep_that_train_would_run(outputs: Path) -> None:
    plan = plan_ablation("neck", ["budget=cpu", "hydra.launcher.n_jobs=2"])
    assert list(plan.axes) == ["model/neck"]
    assert plan.rows[0] == {"model/neck": plan.axes["model/neck"][0]}
    assert plan.seeds == (0, 1, 2)
    assert plan.shared == ("ablation=neck", "budget=cpu")
    assert plan.launching == ("hydra.launcher.n_jobs=2",)
    assert plan.n_jobs == 2
    params = {"model/neck": "", "seed": ""}
    assert plan.folder == outputs / "sweeps" / sweep_name(["ablation=neck", "budget=cpu"], params)
    assert plan_ablation("neck", ["budget=cpu", "seed=5,6", "model/neck=spp,fpn"]).folder == plan.folder
    more = plan_ablation("neck", ["budget=cpu", "seed=5,6"])
    assert more.seeds_up_to(4) == (5, 6, 0, 1)
    lists = plan_ablation("", ["model.anchors.ratios=[1.0],[0.5,1.0]", "budget=cpu"])
    assert lists.axes == {"model.anchors.ratios": ("[1.0]", "[0.5,1.0]")}
    assert lists.seeds == (0,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["neck,box_loss"], "names several ablations"),
        (["neck", "box_loss"], "takes one ablation"),
        (["neck", "ablation=box_loss"], "neck and box_loss are several ablations"),
        (["neck", "seed=0,0,1"], "seed is swept over 0 twice"),
        (["neck", "seed=0,00"], "seed is swept over 0 twice"),
        (["neck", "model/neck=fpn,spp,fpn"], "model/neck is swept over fpn twice"),
        (["neck", "hydra/sweeper=optuna"], "hydra/sweeper=optuna is no choice of detlab ablate"),
        (["neck", "hydra/launcher=basic"], "hydra/launcher=basic is no choice of detlab ablate"),
        (["neck", "preview=true", "preview=false"], "preview is given twice"),
        (["nekc"], "ablation=nekc does not exist; did you mean neck"),
        (["model=ssd"], "Nothing is swept"),
        (["neck", "seed=a"], "seed=a must be a whole number"),
        (["neck", "max_seeds=1", "until=decided"], "max_seeds=1 must be a whole number from 2 on"),
        (["neck", "max_seeds=4"], "max_seeds is for until=decided"),
        (["neck", "until=decided", "max_sedes=3"], "did you mean max_seeds?"),
        (["neck", "until=tired"], "until=tired is not known"),
        (["neck", "preview=maybe"], "preview=maybe must be true or false"),
        (["neck", "--multirun"], "has no --multirun"),
        (["", "optim.lr=interval(0,1)"], "has no end of values"),
        (["neck", "preview=true", "probe=false", "hydra.launcher.n_jobs=-1"], "hydra.launcher.n_jobs=-1 must be"),
        (["neck", "preview=true", "probe=false", "hydra.launcher.threads=abc"], "hydra.launcher.threads=abc must be"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], outputs: Path
) -> None:
    assert main([word for word in words if word]) == 2
    assert message in capsys.readouterr().err
    assert not list(outputs.iterdir())


def test_an_ablation_of_the_users_own_is_planned_and_launched_with_its_folder(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = outputs / "my_conf"
    (own / "ablation").mkdir(parents=True)
    (own / "model" / "head").mkdir(parents=True)
    (own / "model" / "head" / "mine.yaml").write_text("defaults: [retinanet, _self_]\ndepth: 1\n")
    (own / "ablation" / "heads.yaml").write_text(
        "# @package _global_\n# detlab ablate heads\n# Which head of mine?\ndefaults: [{override /model: retinanet}]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {model/head: 'mine,retinanet', seed: '0,1'}}}\n"
    )
    started: list[list[str]] = []

    class Started:
        def __init__(self, command: list[str], **_: Any) -> None:
            started.append(command)

        def wait(self, _: float) -> int:
            return 0

    for words in (["--config-dir", str(own)], [f"--config-dir={own}"]):
        request = read_request(["heads", *words, "budget=cpu"])
        assert request.ablation.axes == {"model/head": ("mine", "retinanet")}
        assert request.ablation.config({"model/head": "mine"})["model"]["head"]["depth"] == 1
        with monkeypatch.context() as patched:
            patched.setattr(command.subprocess, "Popen", Started)
            assert command.launch(request.ablation, {0: [0]}) == 0
        at = started[-1].index("--config-dir")
        assert started[-1][at + 1] == str(own)
    assert main(["heads", "--config-dir", str(own), "preview=true", "probe=false"]) == 0
    assert "Which head of mine?" in capsys.readouterr().out
    for words, message in ((["--config-dir"], "needs the folder"), (["--config-dir=nope"], "nope is no folder")):
        assert main(["heads", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_preview_runs_nothing(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    assert main(["box_loss", "budget=cpu", "--cfg", "job", "probe=false", "until=decided", "max_seeds=4"]) == 0
    said = capsys.readouterr().out
    rows = len(plan_ablation("box_loss", ["budget=cpu"]).rows)
    assert f"{rows * 2} at first, 2 seeds a row; at most {rows} rows x 4 seeds = {rows * 4}" in said
    assert "giou" in said
    assert not list(outputs.iterdir())


def test_a_preview_names_rows_that_the_launcher_would_refuse(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    assert main(["optim.lr=0.001,abc", "model=retinanet", "budget=cpu", "preview=true", "probe=false"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "refused: optim.lr=abc must be a number above 0" in said


def test_a_sweep_whose_rows_are_all_refused_does_not_begin(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    assert main(["optim.lr=x,abc", "model=retinanet", "budget=cpu", "probe=false"]) == 2
    assert "Every row is refused: optim.lr=x must be a number above 0" in capsys.readouterr().err
    assert not list(outputs.iterdir())


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["neck", "answer=test/map_smal"], False),
        (["neck", "answer=val/map"], False),
        (["neck", "answer=test/ar_300"], False),
        (["model=rpn", "optim.lr=0.1,0.2"], False),
        (["model=rpn", "optim.lr=0.1,0.2", "answer=test/ar_100"], True),
        (["neck", "answer=map_small"], True),
        (["neck", "answer=test/ap/person"], True),
        (["neck", "answer=test/mar_100"], True),
        (["neck", "answer=test/mine", "+metrics.classes.mine={_target_: mine.measure, _partial_: true}"], True),
    ],
)
def test_a_metric_that_no_row_has_is_refused_before_the_jobs(
    words: list[str],
    known: bool,
    capsys: pytest.CaptureFixture[str],
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (outputs / "mine.py").write_text("def measure(data):\n    return None\n")
    monkeypatch.syspath_prepend(outputs)
    assert main([*words, "budget=cpu", "preview=true", "probe=false"]) == (0 if known else 2)
    assert ("is no metric of the final test of these rows" in capsys.readouterr().err) == (not known)


@pytest.mark.parametrize(("name", "other"), [("box_loss", False), ("feature_use", True)])
def test_noise_of_another_metric_is_named(
    capsys: pytest.CaptureFixture[str], outputs: Path, name: str, other: bool
) -> None:
    assert main([name, "budget=cpu", "preview=true", "probe=false"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "is found four times of five" in said
    assert ("which is of test/map, not of test/map_small" in said) == other


@pytest.mark.parametrize(
    ("words", "threads"),
    [
        (["hydra.launcher.n_jobs=2"], thread_share(2)),
        (["hydra.launcher.n_jobs=2", "hydra.launcher.threads=3"], 3),
        (["hydra.launcher.n_jobs=2", "threads=5"], 5),
        (["hydra.launcher.n_jobs=1"], None),
    ],
)
def test_a_probe_has_the_threads_of_a_job(
    words: list[str], threads: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int | None] = []

    def probe(configs: list[dict[str, Any]], skip: list[bool]) -> list[Probe]:
        seen.extend(config["threads"] for config in configs)
        return [Probe(60.0, 0.05, "")] * len(configs)

    monkeypatch.setattr(preview, "probe_rows", probe)
    assert main(["neck", "budget=cpu", "model/neck=none,fpn", "preview=true", *words]) == 0
    assert seen == [threads, threads]
    jobs = 1 if "hydra.launcher.n_jobs=1" in words else 2
    assert f"time        {6 // jobs} min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-m", "model/neck=none,fpn", "budget=cpu", "--cfg", "job"], True),
        (["ablation=neck", "--cfg=job"], True),
        (["model/neck=none", "--cfg", "job"], False),
        (["-m", "model/neck=none,fpn"], False),
        (["-m", "model/neck=none,fpn", "--cfg", "hydra"], False),
        (["ablation=neck", "--cfg", "job", "-p", "model"], False),
    ],
)
def test_a_sweep_that_is_shown_is_previewed(words: list[str], shown: bool) -> None:
    assert shows_sweep(words) is shown


def test_train_previews_as_ablate_does(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    assert show_sweep(["-m", "ablation=box_loss", "budget=cpu", "--cfg", "job", "probe=false"]) == 0
    said = capsys.readouterr().out
    assert "Offsets or overlap: which box loss?" in said
    assert "3 seeds = " in said


class Runs:
    """A sweep whose runs are numbers: what is launched has a value at once."""

    def __init__(self, truth: dict[str, float], broken: tuple[str, ...] = ()) -> None:
        self.truth, self.broken = truth, broken
        self.rounds: list[list[tuple[str, int]]] = []
        self.known: dict[tuple[str, int], float] = {}
        self._draw = np.random.default_rng(0).standard_normal

    def launch(self, ablation: Any, wanted: dict[int, list[int]], _: Any = None) -> int:
        asked = [(next(iter(ablation.rows[row].values())), seed) for row, seeds in wanted.items() for seed in seeds]
        self.rounds.append(asked)
        for level, seed in asked:
            if level not in self.broken:
                self.known[level, seed] = self.truth[level] + 0.005 * float(self._draw())
        return 1 if any(level in self.broken for level, _ in asked) else 0

    def measure(self, folder: Path, rows: list[dict[str, str]], seeds: tuple[int, ...], metric: str) -> Measured:
        levels = [next(iter(row.values())) for row in rows]
        values = [[self.known.get((level, seed), np.nan) for seed in seeds] for level in levels]
        return Measured(np.array(values), None, None)


def run(monkeypatch: pytest.MonkeyPatch, runs: Runs, *words: str) -> int:
    monkeypatch.setattr(command, "launch", runs.launch)
    monkeypatch.setattr(command, "measure", runs.measure)
    monkeypatch.setattr(command, "write_page", lambda _: None)
    return answer(read_request(["box_loss", "budget=cpu", f"model/box_loss={','.join(runs.truth)}", *words]))


def test_seeds_go_to_open_comparisons_until_they_are_decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5, "iou": 0.302})
    assert run(monkeypatch, runs, "until=decided", "max_seeds=5") == 0
    assert runs.rounds[0] == [("l1", 0), ("l1", 1), ("giou", 0), ("giou", 1), ("iou", 0), ("iou", 1)]
    assert [seed for level, seed in runs.known if level == "iou"] == [0, 1, 2, 3, 4]
    assert len([1 for level, _ in runs.known if level == "giou"]) < 5
    said = capsys.readouterr().out
    assert "better" in said
    assert "not distinguishable" in said
    before = len(runs.rounds)
    assert run(monkeypatch, runs, "until=decided", "max_seeds=5") == 0  # the same command finds all done
    assert len(runs.rounds) == before


def test_the_sweeps_folder_names_the_looks_for_its_page(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5})
    words = ["until=decided", "min_seeds=3", "max_seeds=4"]
    assert run(monkeypatch, runs, *words) == 0
    assert not list(outputs.rglob(FILE))  # nothing was launched that makes the folder
    folder = read_request(["box_loss", "budget=cpu", "model/box_loss=l1,giou", *words]).ablation.folder
    folder.mkdir(parents=True)
    assert run(monkeypatch, runs, *words) == 0
    assert json.loads((folder / FILE).read_text()) == {"seeds": [0, 1, 2, 3], "first": 3}
    assert run(monkeypatch, runs, "seed=0,1") == 0
    assert not (folder / FILE).exists()


def test_no_verdict_comes_before_min_seeds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5, "iou": 0.3})
    assert run(monkeypatch, runs, "until=decided", "min_seeds=4", "max_seeds=5") == 0
    assert [len(asked) for asked in runs.rounds] == [12, 2]
    assert "box_loss after 4 seeds: 1 of 2 decided" in capsys.readouterr().out.replace("test/map", "box_loss")


def test_a_row_that_fails_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5, "iou": 0.3}, broken=("iou",))
    assert run(monkeypatch, runs, "until=decided", "max_seeds=4") == 1
    assert len([1 for asked in runs.rounds for level, _ in asked if level == "iou"]) == 2
    again = Runs({"l1": 0.3, "iou": 0.3}, broken=("l1", "iou"))
    assert run(monkeypatch, again, "seed=0,1") == 1
    assert len(again.rounds) == 1


def test_without_until_the_seeds_given_run_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5})
    assert run(monkeypatch, runs, "seed=0,1,2") == 0
    assert [len(asked) for asked in runs.rounds] == [6]
    assert "+0.2" in capsys.readouterr().out


def test_an_interrupted_sweep_ends_the_command_with_its_status(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5})
    monkeypatch.setattr(runs, "launch", lambda *_: 130)
    assert run(monkeypatch, runs, "until=decided") == 130
    page = read_request(["box_loss", "budget=cpu", "model/box_loss=l1,giou"]).ablation.folder / "report" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("reloads itself")
    monkeypatch.setattr(command, "launch", runs.launch)
    monkeypatch.setattr(command, "write_page", lambda _: page.write_text("written again"))
    assert answer(read_request(["box_loss", "budget=cpu", "model/box_loss=l1,giou"])) == 130
    assert page.read_text() == "written again"


def test_what_would_decide_stands_beside_a_verdict() -> None:
    values = np.array([[0.30, 0.32, 0.31], [0.33, 0.30, 0.33]])
    look = looks(values, None, 3)[-1]
    table = look_table([{"model/neck": "none"}, {"model/neck": "fpn"}], look.found, look.verdicts, "title")
    cells = [str(next(iter(column.cells))) for column in table.columns]
    assert cells[0] == "neck=fpn"
    assert cells[3] == "not distinguishable"
    assert cells[5].endswith("seeds")


def test_jobs_are_launched_in_the_sweeps_folder(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> None:
    seen: dict[str, Any] = {}

    class Process:
        def __init__(self, words: list[str], **_: Any) -> None:
            seen["words"] = words
            file = next(w for w in words if w.startswith("hydra.sweeper.jobs=")).partition("=")[2].strip("'")
            seen["jobs"] = json.loads(Path(file).read_text())

        def wait(self, _: float) -> int:
            return 0

    monkeypatch.setattr(command.subprocess, "Popen", Process)
    plan = plan_ablation("box_loss", ["budget=cpu", "model/box_loss=l1,giou"])
    assert command.launch(plan, {0: [3], 1: []}) == 0
    assert seen["jobs"] == [["model/box_loss=l1", "seed=3"]]
    assert f"hydra.sweep.dir='{plan.folder}'" in seen["words"]
    assert "ablation=box_loss" in seen["words"]
    with pytest.raises(ConfigError):
        plan_ablation("box_loss,neck", [])


def test_a_launcher_that_was_killed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs({"l1": 0.3, "giou": 0.5})
    monkeypatch.setattr(runs, "launch", lambda *_: -9)
    assert run(monkeypatch, runs, "seed=0,1") == 1
    assert "was ended by signal 9; the same command goes on from here" in capsys.readouterr().err
