"""detlab evidence: claims run one after the other, and what their verdicts follow from is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from detlab.commands import evidence as command
from detlab.commands.ablate import read_request
from detlab.config.resolvers import missing_pretrained
from detlab.report.evidence import read_claims
from detlab.report.kept import read_kept
from tests.report.folders import write_sweep

ROOT = Path(__file__).resolve().parents[2]
RANDOM = "model.backbone.weights=null"  # no backbone of detlab pretrain is asked for
NECKS = {
    "name": "necks",
    "question": "Which neck?",
    "paper": "none",
    "ablation": "neck",
    "sweeps": {
        "shapes": ["budget=cpu", "model/neck=none,fpn", RANDOM],
        "cells": ["budget=cpu_bccd", "data.root={bccd}", RANDOM],
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "claims.yaml").write_text(json.dumps([NECKS]))
    return tmp_path / "claims"


def test_a_sweep_is_run_and_kept_and_the_page_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    elsewhere = folder.parent / "elsewhere"

    def ablate(words: list[str], **_: Any) -> SimpleNamespace:
        seen.append(words[3:])
        runs = write_sweep(read_request(words[3:]).ablation.folder, seeds=4)
        (runs / "0" / "job.json").write_text("{}")
        (runs / "0" / "checkpoints").mkdir()
        (runs / "0" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
        shutil.copytree(runs / "0", runs / "99")
        shutil.copytree(runs / "0", elsewhere)
        (runs / "98").symlink_to(elsewhere)
        status = json.loads((runs / "99" / "status.json").read_text())
        (runs / "99" / "status.json").write_text(json.dumps(status | {"state": "stopped"}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", ablate)
    assert command.main([str(folder), "n_jobs=2", "trainer=gpu"]) == 0
    said = capsys.readouterr().out
    assert "left out    necks on cells: it needs bccd=PATH" in said
    (words,) = seen
    assert words[:3] == ["neck", "budget=cpu", "model/neck=none,fpn"]
    assert "until=decided" in words
    assert {"hydra.launcher.n_jobs=2", "trainer=gpu"} <= {*words}
    (unfinished,) = Path("outputs/evidence/necks-shapes").rglob("*.ckpt")
    assert unfinished.parts[-3] == "99"
    assert (elsewhere / "checkpoints" / "best.ckpt").is_file()
    kept = read_kept(folder / "necks-shapes")
    assert kept is not None
    assert kept.measured.values.shape == (2, 4)
    assert kept.measured.draws is not None
    assert [run["seed"] for run in kept.facts["runs"] if run["row"] == 0] == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]  # and the linked
    page = folder.with_suffix(".md").read_text()
    assert "Which neck?" in page
    assert "(claims/differences.png)" in page
    with Image.open(folder / "differences.png") as picture:
        assert picture.format == "PNG"
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: pytest.fail("run=false runs nothing"))
    assert command.main([str(folder), "run=false"]) == 0


def test_the_sweeps_of_one_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def ablate(words: list[str], **_: Any) -> SimpleNamespace:
        ran.append(str(read_request(words[3:]).ablation.folder))
        write_sweep(Path(ran[-1]), seeds=4)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", ablate)
    (folder.parent / "cells").mkdir()
    (folder.parent / "cells" / "1.jpg").touch()
    assert command.main([str(folder), "data=cells", "bccd=cells"]) == 0
    assert [Path(sweep).name for sweep in ran] == ["necks-cells"]


def test_a_sweep_whose_rows_are_all_refused_is_told_before_any_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: pytest.fail("nothing runs"))
    sweeps = {"cells": ["budget=cpu_bccd", "data.root=."]}  # the ablation sets options of generated pictures
    refused = NECKS | {"name": "other", "ablation": "focal_or_cross_entropy", "sweeps": sweeps}
    (folder / "claims.yaml").write_text(json.dumps([NECKS, refused]))
    assert command.main([str(folder)]) == 2
    assert "other on cells: Every row is refused: " in capsys.readouterr().err


def test_a_backbone_that_was_not_pretrained_is_told_before_any_sweep_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ablate(words: list[str], **_: Any) -> SimpleNamespace:
        write_sweep(read_request(words[3:]).ablation.folder, seeds=4)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: pytest.fail("nothing runs"))
    words = ["budget=cpu", "data.cache_dir=cache", "model/neck=fpn,fpn_small", "model/backbone=resnet34"]
    deeper = NECKS | {"name": "deeper", "sweeps": {"shapes": words}}
    (folder / "claims.yaml").write_text(json.dumps([NECKS, deeper]))
    assert command.main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "deeper on shapes: its jobs begin from cache/pretrained/resnet34-shapes.pth, which is not there" in said
    assert "run `detlab pretrain model/backbone=resnet34`" in said
    assert "model.backbone.weights=null" in said
    file = folder.parent / "cache" / "pretrained" / "resnet34-shapes.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    monkeypatch.setattr(command.subprocess, "run", ablate)
    assert command.main([str(folder)]) == 0


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["budget=cpu", "data.cache_dir=cache"], "cache/pretrained/resnet18-shapes.pth"),
        (["budget=cpu", "data.cache_dir=null"], None),
        (["budget=cpu", "data.cache_dir=cache", "model.backbone.weights=null"], None),
        (["budget=cpu", "data.cache_dir=cache", "model/backbone=darknet53"], None),
        (["data.cache_dir=cache"], None),
    ],
)
def test_which_configs_want_a_pretrained_backbone(
    words: list[str], missing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ablation = read_request(["neck", *words]).ablation
    found = missing_pretrained(ablation.composed(ablation.rows[0]))
    assert found == (missing if missing is None else Path(missing))


def test_a_claim_without_that_data_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = NECKS | {"name": "necks_of_photos", "sweeps": {"photos": ["budget=cpu"]}}
    (folder / "claims.yaml").write_text(json.dumps([NECKS, photos]))
    assert command.main([str(folder), "only=necks", "data=photos"]) == 2
    assert "only=necks data=photos: none of these claims has a sweep on that data" in capsys.readouterr().err


def finished(folder: Path, seeds: int = 4) -> Path:
    """The runs of the claim of `folder` on shapes, as its sweep leaves them."""
    (claim, *_) = read_claims(folder)
    words = [*claim.command("shapes"), f"hydra.sweep.dir={folder.parent / 'out' / 'necks-shapes'}"]
    runs = write_sweep(read_request(words).ablation.folder, seeds=seeds)
    (runs / "0" / "job.json").write_text("{}")
    return runs


def test_a_kept_answer_is_not_replaced_by_fewer_runs_of_an_unfinished_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, words = finished(folder), [str(folder), "run=false", "out=out"]
    assert command.main(words) == 0
    stem = folder / "necks-shapes"
    before = [stem.with_suffix(end).read_bytes() for end in (".npz", ".json")]
    for run in sorted(runs.iterdir())[1:]:
        shutil.rmtree(run)
    capsys.readouterr()
    assert command.main(words) == 0
    assert "not kept    necks on shapes: " in capsys.readouterr().out
    assert [stem.with_suffix(end).read_bytes() for end in (".npz", ".json")] == before
    shutil.rmtree(runs)
    finished(folder, seeds=5)
    assert command.main(words) == 0
    kept = read_kept(stem)
    assert kept is not None
    assert kept.measured.values.shape[1] == 5
    shutil.rmtree(runs)
    finished(folder, seeds=4)
    monkeypatch.setattr(command.Kept, "goes_on", False)  # decided: another machine may need fewer seeds
    assert command.main(words) == 0
    kept = read_kept(stem)
    assert kept is not None
    assert kept.measured.values.shape[1] == 4


def test_runs_of_other_options_are_not_credited_to_the_claim(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: pytest.fail("nothing runs"))
    runs = finished(folder)
    own = ["ablation=neck", "budget=cpu", RANDOM, "trainer=gpu", "model/neck=none", "seed=0"]
    (runs / "0" / "job.json").write_text(json.dumps({"overrides": own}))
    assert command.main([str(folder), "run=false", "out=out"]) == 0
    assert read_kept(folder / "necks-shapes") is not None
    (folder / "necks-shapes.npz").unlink()
    (folder / "necks-shapes.json").unlink()
    capsys.readouterr()
    (runs / "0" / "job.json").write_text(json.dumps({"overrides": [*own, "trainer.max_epochs=1"]}))
    assert command.main([str(folder), "run=false", "out=out"]) == 0
    assert "has runs of other options, trainer.max_epochs=1" in capsys.readouterr().out
    assert read_kept(folder / "necks-shapes") is None
    assert command.main([str(folder), "out=out"]) == 2
    assert "has runs of other options than the claim: trainer.max_epochs=1; move it away" in capsys.readouterr().err


def test_damage_is_told_before_a_sweep_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: pytest.fail("nothing runs"))
    (folder / "claims.yaml").write_text(json.dumps([NECKS, NECKS | {"name": "other"}]))
    (folder / "other-shapes.npz").write_bytes(b"garbage")
    (folder / "other-shapes.json").write_text("{}")
    assert command.main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "cannot be read together: no arrays of numbers; restore them, or delete both and run" in said
    assert "pickle" not in said


def test_only_what_is_left_out_is_no_success(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(folder), "data=cells"]) == 2
    assert "Every sweep was left out; give bccd=PATH" in capsys.readouterr().err


def test_folders_with_letters_of_any_language(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def ablate(words: list[str], **_: Any) -> SimpleNamespace:
        seen.append(read_request(words[3:]).ablation.folder)
        write_sweep(seen[-1], seeds=4)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", ablate)
    assert command.main([str(folder), "out=jörg"]) == 0
    assert seen == [folder.parent / "jörg" / "necks-shapes"]


def test_the_page_of_a_folder_with_a_dot_stands_beside_it(folder: Path) -> None:
    moved = folder.rename(folder.parent / "claims.v1")
    (moved / "about.md").write_text("Only small pictures.\n")
    assert command.main([str(moved), "run=false"]) == 0
    page = (folder.parent / "claims.v1.md").read_text()
    assert f"detlab evidence {folder.parent.name}/claims.v1" in page
    assert "\nOnly small pictures.\n" in page
    assert "intervals.md" not in page
    assert "blood" not in page


def test_an_interrupted_sweep_ends_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=130))
    assert command.main([str(folder)]) == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes one folder"),
        (["claims", "only=x"], "only=x is unknown; there are necks"),
        (["claims", "data=x"], "data=x is unknown; there are shapes, cells"),
        (["claims", "only="], "only= names nothing; leave it out for all, or give only=necks"),
        (["claims", "n_jobs=1", "n_jobs=2"], "n_jobs is given twice: n_jobs=1 and n_jobs=2; give one"),
        (["claims", "bccd="], "bccd= must be a folder with files"),
        (["claims", "bccd=nowhere"], "bccd=nowhere must be a folder with files"),
        (["claims", "n_jobs=0"], "n_jobs=0 must be a whole number from 1 on"),
        (["claims", "run=maybe"], "run=maybe must be true or false"),
        (["claims", "rum=1"], "There is no option rum"),
        (["nowhere"], "claims.yaml"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words or ["run=true"]) == 2
    assert message in capsys.readouterr().err


def test_paths_are_filled_in_as_values(folder: Path) -> None:
    (claim,) = read_claims(folder)
    assert command.filled(claim, "cells", {}) is None
    words = command.filled(claim, "cells", {"bccd": "a b"})
    assert words is not None
    assert words[2] == f"data.root='{Path('a b').absolute()}'"


@pytest.mark.slow
def test_every_documented_sweep_can_be_planned() -> None:
    for claim in read_claims(ROOT / "docs" / "evidence"):
        for data in claim.sweeps:
            words = command.filled(claim, data, {"bccd": "/data"})
            assert words is not None
            request = read_request(words)
            assert (request.min_seeds, request.max_seeds) == (4, 8)
            assert len(request.ablation.rows) > 1
