"""Small files of a run folder with other shapes than theirs: the run is read with what is left, or named as none."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from detlab.commands.compare import main as compare
from detlab.commands.report import main as report
from detlab.report.analysis import analyse
from detlab.report.detections import read_stored
from detlab.report.drawn import read_drawn
from detlab.report.matched import digest_of, read_copy
from detlab.report.rows import left_out, make_sweep
from detlab.report.runs import ReportError, Run, find_runs, read_run
from detlab.report.sheet import as_data_uri, picture_of
from detlab.runs.resuming import read_status
from detlab.sweeps.job import read_progress
from detlab.sweeps.record import read_entry
from detlab.system.files import read_facts
from detlab.system.locks import holder, is_locked
from tests.report.folders import write_run
from tests.runs.test_safety import png

SHAPES = ("", "{", "3", "[]", '"text"', "null", '{"metrics": 3, "monitor": null, "state": null}', "[{}]")
FILES = ("status.json", "job.json", "result.json", "budget.json", ".hydra/hydra.yaml", ".hydra/overrides.yaml")


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_as_good_as_none(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 3\n")
    (tmp_path / name).write_text(text)
    run = read_run(tmp_path)
    assert run.seed == 3
    assert run.metrics == {}
    assert read_progress(tmp_path).best is None
    assert isinstance(read_status(tmp_path), dict)
    assert isinstance(read_facts(tmp_path / name), dict)


@pytest.mark.parametrize("seed", ["abc", "[1]", "null", "1.5"])
def test_a_damaged_seed_is_0(seed: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(f"seed: {seed}\n")
    assert read_run(tmp_path).seed == 0


def test_numbers_that_are_none_are_left_out_and_named(tmp_path: Path) -> None:
    """Python reads NaN, Infinity and true in JSON; each would have counted in a mean."""
    run = write_run(tmp_path / "0", ["seed=0"])
    (run / "result.json").write_text(
        '{"metrics": {"map": "0.5", "map_50": NaN, "map_75": 1e999, "mar_1": true, "mar_10": [1], "mar_100": 0.25}, '
        '"errors": {"kinds": {"missed": {"ap_regained": "x", "count": 2}, "both": 3}}}'
    )
    (run / "budget.json").write_text('{"batch": 1' + "0" * 400 + ', "lr": true, "epochs": 3}')
    (run / "status.json").write_text('{"state": ["finished"], "reason": {}, "monitor": [1], "step": "x"}')
    (run / "metrics.csv").write_text(
        "epoch,step,val/map\n0,9,nan\n1,9,0.5\n²,9,0.6\n" + "9" * 5000 + ",9,0.7\n3,9,inf\n"
    )
    found = read_run(run)
    assert found.metrics == {"mar_100": 0.25}
    assert found.odd == ("map", "map_50", "map_75", "mar_1", "mar_10")
    assert found.errors == {"kinds": {"missed": {"count": 2}, "both": {}}}
    assert found.budget == {"epochs": 3}
    assert found.monitor == "val/map"
    assert found.curve == [(2, 0.5)]
    assert read_progress(run).step == 9
    sweep = make_sweep([found, write_and_read(tmp_path / "1", ["seed=1"])])
    assert left_out(sweep)[0].startswith("5 entries of result.json are no finite number and are left out: map in ")


def write_and_read(folder: Path, overrides: list[str]) -> Run:
    return read_run(write_run(folder, overrides))


def damaged(place: tuple[str | int, ...], text: str) -> tuple[str, tuple[str | int, ...], str]:
    return ("ground_truth.json" if isinstance(place[0], str) else "detections.json", place, text)


STORED = [
    damaged(("images", 0, "id"), '"x"'),
    damaged(("images", 1, "id"), "1"),  # two images of one id: boxes would go to the later one
    damaged(("categories", 1, "id"), "1"),
    damaged(("categories",), "3"),
    damaged(("annotations", 0, "image_id"), "-1"),
    damaged(("annotations", 0, "category_id"), "[1]"),
    damaged(("annotations", 0, "bbox"), "[1, 2, 3]"),
    damaged(("annotations", 0, "bbox", 0), "NaN"),
    damaged(("annotations", 0, "bbox", 2), "-4"),
    damaged(("annotations", 0, "area"), "1" + "0" * 400),
    damaged((0, "bbox", 0), "Infinity"),
    damaged((0, "bbox", 0), '"a"'),
    damaged((0, "score"), "NaN"),
    damaged((0, "score"), "null"),
    damaged((0, "category_id"), "{}"),
    damaged((0, "image_id"), "12345678901234567890"),
    damaged((0,), "7"),
]


def spoil(run: Path, name: str, place: tuple[str | int, ...], text: str) -> None:
    document = node = json.loads((run / name).read_text())
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = "HERE"
    (run / name).write_text(json.dumps(document).replace('"HERE"', text))


def test_damaged_boxes_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "0", ["seed=0"])
    for name, place, text in STORED:
        whole = (run / name).read_text()
        spoil(run, name, place, text)
        with pytest.raises(ReportError, match=f"0/{name} holds other entries"):
            read_stored(run)
        (run / name).write_text(whole)
    assert read_stored(run) is not None


def test_damaged_boxes_are_not_resampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (write_run(tmp_path / str(i), [f"seed={i}"]) for i in (0, 1))
    spoil(a, *STORED[-1])
    assert compare([str(a), str(b), "resamples=2"]) == 0
    assert f"No interval and no images: {a}/detections.json holds other entries" in capsys.readouterr().out
    analysis = analyse(make_sweep([read_run(a), read_run(b)]), 2)
    assert analysis.why_no_draws.startswith(f"{a}/detections.json holds other entries")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "0", ["seed=0"])
    for name in ("detections.json", "metrics.csv", ".report/matched.npz", "pictures/test-step000030.png", ".lock"):
        (run / name).unlink(missing_ok=True)
        (run / name).parent.mkdir(exist_ok=True)
        os.mkfifo(run / name)
    analysis = analyse(make_sweep([read_run(run)]), 2)
    assert analysis.why_no_draws == f"{run}/detections.json cannot be read (is no regular file)"
    assert read_progress(run).history == ()
    assert read_copy(run, "matched", "x") is None
    assert picture_of(analysis.sweep.rows[0]) is None
    assert not is_locked(run / ".lock")
    assert holder(run / ".lock") == {}


def test_a_cache_that_came_with_a_folder_is_not_read(tmp_path: Path) -> None:
    """Its arrays could be of any shape, and say anything about the verdicts."""
    run = write_run(tmp_path / "0", ["seed=0"])
    assert read_drawn(run, ["map"], 4) is not None
    other = Path(shutil.copytree(run, tmp_path / "1"))
    digest = digest_of(run, "x")
    assert digest == digest_of(run, "x") != digest_of(other, "x")
    shutil.rmtree(other / ".report")
    (tmp_path / "elsewhere").mkdir()
    (other / ".report").symlink_to(tmp_path / "elsewhere")
    assert read_drawn(other, ["map"], 4) is not None
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", png(60_000, 60_000), png(20_000, 9_000)])
def test_a_damaged_picture_is_no_picture(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "test-1.png").write_bytes(content)
    assert as_data_uri(tmp_path / "test-1.png") is None


def test_a_run_that_is_there_twice_is_said(tmp_path: Path) -> None:
    runs = [write_and_read(tmp_path / name, ["seed=0"]) for name in ("a", "b")]
    sweep = make_sweep(runs)
    assert sweep.rows[0].runs[0].folder == tmp_path / "a"
    assert left_out(sweep) == [
        "1 finished run has the choices and the seed of another run and is left out: "
        f"{tmp_path / 'b'}. Give only one of the folders."
    ]


def test_the_grid_of_a_random_search_is_not_made(tmp_path: Path) -> None:
    """20 trials of 12 keys: 20^12 combinations."""
    run = write_and_read(tmp_path / "0", ["seed=0"])
    trials = [replace(run, overrides={f"optim.k{k}": str((k + 1) * n) for k in range(12)}) for n in range(1, 21)]
    assert len(make_sweep(trials).rows) == 20


@pytest.mark.parametrize("name", ["²", "٣"])
def test_digits_of_other_scripts(name: str, tmp_path: Path) -> None:
    write_run(tmp_path / name, ["seed=0"])
    (tmp_path / name / ".hydra" / "overrides.yaml").write_text(f"['seed={name}']")
    assert [run.seed for run in find_runs([tmp_path])] == [0]
    (tmp_path / name / "job.json").write_text("{}")
    assert read_entry(tmp_path / name / "job.json") is None


def test_a_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    """It would empty the file that the link leads to."""
    (tmp_path / "mine").write_text("precious")
    run = write_run(tmp_path / "sweep" / "0", ["seed=0"])
    (tmp_path / "sweep" / "report").mkdir()
    (tmp_path / "sweep" / "report" / ".lock").symlink_to(tmp_path / "mine")
    assert report([str(tmp_path / "sweep"), "resamples=0"]) == 2
    assert (tmp_path / "mine").read_text() == "precious"
    (run / "report").symlink_to(tmp_path)
    assert report([str(run), "resamples=0"]) == 2
    assert not (tmp_path / "index.html").exists()


def test_runs_of_other_splits_and_metrics_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (write_run(tmp_path / str(i), [f"seed={i}"]) for i in (0, 1))
    result = json.loads((b / "result.json").read_text())
    result["split"] = "val"
    del result["metrics"]["map_50"]
    (b / "result.json").write_text(json.dumps(result))
    assert compare([str(a), str(b), "resamples=0"]) == 0
    out = capsys.readouterr().out
    assert "A was judged on test and B on val: their metrics cannot be compared." in out
    assert "Only A has map_50." in out
