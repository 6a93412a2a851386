"""Whole runs on a GPU: every family trains, evaluates and predicts; precision, compilation, determinism, resuming."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L  # noqa: N812 - Lightning's own convention
import pytest
import torch
from torch import Tensor

import detlab
from detlab.commands.evaluate import evaluate
from detlab.runs.checkpoints import read_content
from detlab.training.fit import train
from detlab.training.signals import Stopped
from tests import killing
from tests.commands.test_running import FAMILIES, config_of, small, tool
from tests.data.writing import picture
from tests.gpu import CUDA, ON_GPU
from tests.training.test_reliability import At

pytestmark = ON_GPU


@pytest.fixture(autouse=True)
def any_order() -> Iterator[None]:
    """A deterministic run leaves torch's switch on, in whose shade other operations wait."""
    yield
    torch.use_deterministic_algorithms(False)


def run(run_dir: Path, family: str, *overrides: str, at: L.Callback | None = None) -> Path:
    """A short run in this folder."""
    options = [o for o in small(family) if not o.startswith("trainer.precision")]
    config = config_of(run_dir, *options, "trainer=gpu", "data.num_workers=2", *overrides)
    if at is not None:
        killing.GIVEN[:] = [at]
        config["callbacks"]["at"] = {"_target_": "tests.killing.given"}
    train(config)
    return run_dir


def weights(folder: Path) -> dict[str, Tensor]:
    """The last checkpoint's."""
    return read_content(folder / "checkpoints" / "last.ckpt")["state_dict"]


def finite(folder: Path) -> bool:
    """Whether all weights are numbers."""
    return all(bool(w.isfinite().all()) for w in weights(folder).values() if w.is_floating_point())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_evaluates_and_predicts(family: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", family, "trainer.precision=32-true")
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert finite(folder)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    limit = "data.limit={train: 8, val: 4, test: 4}"
    for accelerator, near in (("gpu", 2e-3), ("cpu", 2e-2)):  # an untrained detector's scores nearly tie
        options = [f"run={folder}", limit, f"trainer.accelerator={accelerator}", "worst=0"]
        assert evaluate(tool("evaluate", tmp_path / accelerator, *options)) == pytest.approx(metrics, abs=near)
    picture(tmp_path / "a.jpg", (50, 80))
    loaded = detlab.load(folder, device="cuda")
    assert next(loaded.detector.parameters()).is_cuda
    assert len(loaded.predict([tmp_path / "a.jpg"])) == 1


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("family", ["retinanet", "faster_rcnn", "ssd", "yolov1", "yolov2", "yolo"])
def test_precisions(family: str, precision: str, tmp_path: Path) -> None:
    assert finite(run(tmp_path, family, f"trainer.precision={precision}"))


@pytest.mark.parametrize("family", ["retinanet", "ssd", "faster_rcnn"])
def test_compiled_runs(family: str, tmp_path: Path) -> None:
    assert finite(run(tmp_path, family, "compile=true", "data.canvas=[64, 64]", "trainer.precision=bf16-mixed"))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("retinanet", []),
        ("faster_rcnn", []),
        ("faster_rcnn", ["model/pool=roi_pool"]),
        ("sppnet", []),
        ("ssd", []),
        ("yolo", []),
    ],
)
def test_deterministic_runs_are_equal_to_the_bit(family: str, options: list[str], tmp_path: Path) -> None:
    a, b = (weights(run(tmp_path / name, family, *options, "deterministic=true", "seed=3")) for name in ("a", "b"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    same = ["deterministic=true", "trainer.precision=32-true", "seed=5", "trainer.max_epochs=3"]
    whole = weights(run(tmp_path / "whole", "faster_rcnn", *same))
    with pytest.raises(Stopped):
        run(tmp_path / "cut", "faster_rcnn", *same, at=At(3, lambda _: os.kill(os.getpid(), signal.SIGTERM)))
    cut = weights(run(tmp_path / "cut", "faster_rcnn", *same, "resume=true"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_memory_is_given_back(tmp_path: Path) -> None:
    """A second run in one process starts from what the first began with."""
    run(tmp_path / "first", "retinanet")
    before = torch.cuda.memory_allocated(CUDA)
    run(tmp_path / "second", "retinanet")
    assert torch.cuda.memory_allocated(CUDA) - before < 64 * 2**20
