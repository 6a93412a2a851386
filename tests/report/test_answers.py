"""The first screen, the pictures of cost, and the page that follows a sweep."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from detlab.commands.report import main
from detlab.report.analysis import analyse
from detlab.report.answers import answer, answer_html, command, factors, needed, seeds_to_run
from detlab.report.contents import main_table
from detlab.report.intervals import Contrast
from detlab.report.rows import make_sweep
from detlab.report.runs import find_runs
from detlab.report.scatter import Point, front
from detlab.report.tables import DASH
from detlab.report.tradeoffs import front_words, tradeoffs
from detlab.system.locks import Lock
from tests.report.folders import write_run, write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def test_a_page_follows_a_sweep_while_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, pages = Lock(tmp_path / ".lock"), []
    assert lock.take()
    page = tmp_path / "report" / "index.html"

    def moment(_: float) -> None:
        pages.append(page.read_text() if page.is_file() else "")
        if len(pages) == 3:
            lock.give_back()
        else:
            write_run(tmp_path / str(len(pages)), [f"model/neck={len(pages)}", "seed=0"])

    monkeypatch.setattr("detlab.commands.report.time.sleep", moment)
    assert main([str(tmp_path), "resamples=10", "follow=true"]) == 0
    assert pages[0] == ""  # no run yet
    assert ["1 rows, 1 runs" in pages[1], "2 rows, 2 runs" in pages[2]] == [True, True]
    assert all('http-equiv="refresh" content="30"' in text for text in pages[1:])
    assert 'http-equiv="refresh"' not in page.read_text()
    assert "no run yet" in capsys.readouterr().out
    assert main([str(tmp_path), "follow=perhaps"]) == 2
    assert main([str(tmp_path), "reload=often"]) == 2
    said = capsys.readouterr().err
    assert "follow=perhaps must be true or false" in said
    assert "reload=often must be a whole number of seconds" in said
    assert main([str(tmp_path / "nowhere"), "follow=true"]) == 2


def test_ctrl_c_ends_following_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, page = Lock(tmp_path / ".lock"), tmp_path / "report" / "index.html"
    assert lock.take()

    def interrupt(_: float) -> None:
        write_run(tmp_path / "0", ["seed=0"])
        raise KeyboardInterrupt

    monkeypatch.setattr("detlab.commands.report.time.sleep", interrupt)
    assert main([str(tmp_path), "resamples=0", "follow=true"]) == 130
    assert 'http-equiv="refresh"' not in page.read_text()  # nobody updates it any more
    lock.give_back()


def test_progress_is_told_off_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detlab.commands.report.QUIET_S", -1.0)
    for seed in range(2):
        write_run(tmp_path / str(seed), [f"seed={seed}"])
    assert main([str(tmp_path), "resamples=10"]) == 0
    said = capsys.readouterr().err
    assert "detlab: resampling 1 of 2: all runs, seed 0" in said
    assert "detlab: resampling 2 of 2: all runs, seed 1, about" in said


def test_the_first_screen_ranks_factors_and_says_what_would_decide(folder: Path) -> None:
    analysis = analyse(make_sweep(find_runs([folder])), resamples=100)
    assert [factor.name for factor in factors(analysis)] == ["neck", "box_loss"]
    said = answer(analysis)
    assert said[0].startswith("neck: fpn instead of none: +0.297 [")
    assert said[0].endswith("mAP, better (over 2 pairs of rows, across box_loss).")
    assert said[1].startswith("box_loss: giou instead of l1: -0.002 [")
    assert said[2].startswith("Highest mAP: neck fpn · box_loss l1, 0.610 [")
    assert said[3] == "Beside the baseline, neck none · box_loss l1: 2 better, 0 worse, 1 undecided."
    html = answer_html(analysis)
    assert html.count('<svg class="span"') == 2
    assert html.index("neck: fpn") < html.index("box_loss: giou")


def test_what_would_decide_the_open_rows() -> None:
    def row(**fields: object) -> Contrast:
        return Contrast(0.01, -0.01, 0.03, "undecided", 0.2, 0.4, **{"seeds": 3, **fields})

    decided = Contrast(0.3, 0.2, 0.4, "better", 0.001, 0.001, seeds=3, seeds_needed=2)
    assert needed([decided]) == ""
    assert seeds_to_run([decided]) is None
    some = [decided, row(seeds_needed=5), row(seeds_needed=9), row(seeds_needed=400), row(images_needed=2000)]
    assert seeds_to_run(some) == 9
    assert needed(some) == (
        "If differences stay as large as they are seen: 9 seeds a row would decide 2 of the 4; no number of seeds "
        "decides 1, but 2,000 test images would decide the first."
    )
    assert needed([row(seeds_needed=400)]).endswith("the first would need 400 seeds.")
    assert seeds_to_run([row(seeds_needed=400)]) is None


def test_the_command_that_adds_seeds(tmp_path: Path) -> None:
    for number, (neck, seed) in enumerate(itertools.product(("none", "fpn"), range(1))):
        write_run(tmp_path / str(number), [f"model/neck={neck}", f"seed={seed}", "budget=cpu"])
    analysis = analyse(make_sweep(find_runs([tmp_path])), resamples=20)
    assert command(analysis) == "detlab train -m budget=cpu model/neck=none,fpn seed=0,1"
    for number in range(2):
        write_run(tmp_path / "b" / str(number), [f"model/neck={['none', 'fpn'][number]}", "seed=0", "ablation=neck"])
    analysis = analyse(make_sweep(find_runs([tmp_path / "b"])), resamples=20)
    assert command(analysis) == "detlab ablate neck model/neck=none,fpn until=decided max_seeds=2"
    analysis = analyse(make_sweep(find_runs([tmp_path / "b"]), baseline="neck=fpn"), resamples=20)
    assert command(analysis) == "detlab ablate neck model/neck=fpn,none until=decided max_seeds=2"


@pytest.mark.parametrize(("name", "written"), [("sweep-1", "{}"), ("mine here", "'{}'")])
def test_the_command_adds_the_seeds_to_the_same_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    shared = ["budget=cpu", "+extra=1", "logger=csv"]
    for number, neck in enumerate(("none", "fpn")):
        write_run(tmp_path / name / str(number), [*shared, f"model/neck={neck}", "seed=0", "trust=true"])
    (tmp_path / name / "sweep.json").write_text("{}")
    monkeypatch.chdir(tmp_path)  # a command that is pasted elsewhere would begin another sweep there
    assert shlex.split(command(analyse(make_sweep(find_runs([Path(name)])), resamples=0))) == [
        *["detlab", "train", "-m", "budget=cpu", "+extra=1", "logger=csv", "model/neck=none,fpn", "seed=0,1"],
        f"hydra.sweep.dir={written.format(tmp_path / name)}",
    ]


def test_a_swept_key_that_was_added_is_added_again(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"+optim.new={number}", "seed=0"])
    assert command(analyse(make_sweep(find_runs([tmp_path])), resamples=0)) == "detlab train -m +optim.new=0,1 seed=0,1"


def test_the_command_names_the_folder_of_own_options(tmp_path: Path) -> None:
    for number, neck in enumerate(("none", "fpn")):
        run = write_run(tmp_path / str(number), [f"model/neck={neck}", "seed=0", "ablation=mine"])
        words = ["python", "-m", "detlab.commands.train", "--config-dir", "/own", f"model/neck={neck}"]
        (run / "job.json").write_text(json.dumps({"state": "done", "command": words}))
    told = command(analyse(make_sweep(find_runs([tmp_path])), resamples=0))
    assert told == "detlab ablate mine --config-dir=/own model/neck=none,fpn until=decided max_seeds=2"


def test_the_pareto_front_holds_what_no_row_beats() -> None:
    points = [
        Point(n, c, v, v, v) for n, c, v in (("a", 1, 0.3), ("b", 2, 0.2), ("c", 3, 0.5), ("d", 3, 0.4), ("e", 5, 0.5))
    ]
    assert [point.name for point in front(points)] == ["a", "c"]


def test_unequal_costs_are_columns_and_a_warning(folder: Path, tmp_path: Path) -> None:
    assert tradeoffs(analyse(make_sweep(find_runs([folder])), resamples=0)) == ""
    for number, latency in enumerate((10.0, 30.0)):
        run = write_run(tmp_path / str(number), [f"model/neck={number}", "seed=0"])
        budget = json.loads((run / "budget.json").read_text())
        (run / "budget.json").write_text(json.dumps(budget | {"latency_ms": latency}))
    analysis = analyse(make_sweep(find_runs([tmp_path])), resamples=20)
    assert main_table(analysis).heads[-1] == "latency with NMS, ms"
    assert front_words(analysis) == [
        "Rows are of unequal cost, in latency with NMS, ms (10 to 30): read differences beside it (Cost)."
    ]
    assert tradeoffs(analysis).count("<svg") == 1


def test_the_papers_values_stand_beside_ours(tmp_path: Path) -> None:
    paper = {"table": "RetinaNet table 1 e, AP", "values": {"resnet50": 35.7, "resnet101": 37.8}}
    for number, name in enumerate(("resnet18", "resnet50", "resnet101")):
        write_run(tmp_path / str(number), [f"model/backbone={name}", "seed=0"], paper=paper)
    table = main_table(analyse(make_sweep(find_runs([tmp_path])), resamples=0))
    column = table.heads.index("RetinaNet table 1 e, AP")
    assert [row[column].text for row in table.rows] == [DASH, "35.7", "37.8"]


def test_values_of_val_are_said_to_be_of_val(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep")
    for number, file in enumerate(sorted(folder.rglob("result.json"))):
        if number < 3:
            file.write_text(json.dumps(json.loads(file.read_text()) | {"split": "val"}))
    assert main([str(folder), "resamples=0"]) == 0
    text = (folder / "report" / "index.html").read_text()
    assert "3 of 11 runs are judged on val, which also selected their checkpoints" in text
    assert "data.test_fraction=0.2" in text
    markdown = (folder / "report" / "report.md").read_text()
    assert "3 of 11 runs are judged on val, which also selected their checkpoints" in markdown
    assert "of the cells are missing or failed" in markdown
