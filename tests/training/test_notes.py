"""What is said, or refused, of a run before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

import detlab
from detlab.config.compose import compose_config, plain_config
from detlab.data.transforms import Resize
from detlab.detectors import Detector
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch, Targets
from detlab.training.build import build
from detlab.training.console import input_line
from detlab.training.trainers import callbacks_of
from tests.batches import make_batch

TINY = [
    "name=x",
    "data.counts={train: 4, val: 2, test: 2}",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.cache_dir=null",
    "logger=none",
    "callbacks=none",
    "model.backbone.weights=null",
]
RPN = ["model/anchors=rpn9", "model/neck=none"]  # anchors from 91 x 181 px on


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    """The notes of a run that is built, not trained."""
    build(plain_config(compose_config("train", [*TINY, f"paths.run_dir={tmp_path}", *overrides])))
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("note").strip() for line in lines if line.startswith("note")]


@pytest.mark.parametrize("model", ["retinanet", "ssd", "faster_rcnn", "rpn", "yolo"])
def test_the_defaults_have_nothing_to_note(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tmp_path, capsys, f"model={model}") == []


@pytest.mark.parametrize("logger", ["none", "csv"])
def test_the_default_callbacks_do_without_a_logger(logger: str, tmp_path: Path) -> None:
    """Lightning's monitor of the learning rate refuses to start without one."""
    words = [t for t in TINY if not t.startswith(("logger", "callbacks"))]
    words += ["model=retinanet", f"logger={logger}", f"paths.run_dir={tmp_path}"]
    run = build(plain_config(compose_config("train", words)))
    monitors = [c for c in callbacks_of(run.trainer) if isinstance(c, LearningRateMonitor)]
    assert len(monitors) == (logger == "csv")
    for monitor in monitors:
        monitor.on_train_start(run.trainer)


def test_a_selection_below_what_is_judged_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (note,) = said(tmp_path, capsys, "model=retinanet", "model.detect.max_detections=20")
    assert note == (
        "model.detect.max_detections=20 keeps at most 20 boxes of an image, but data.max_detections=[1, 10, 100] has "
        "metrics look at 100, so what they say of 100 is of 20; use model.detect.max_detections=100, or "
        "data.max_detections up to 20."
    )
    both = ["model.detect.max_detections=20", "data.max_detections=[1, 20]"]
    assert said(tmp_path, capsys, "model=retinanet", *both) == []


def test_proposals_and_views_are_selected_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (note,) = said(tmp_path, capsys, "model=rpn", "model.detect.post_nms_test=300")
    assert note.startswith("model.detect.post_nms_test=300 keeps at most 300 boxes of an image, but metrics.proposals.")
    assert "recall.max_detections=[100, 300, 1000] has metrics look at 1000" in note
    (note,) = said(tmp_path, capsys, "model=retinanet", "tta=flip", "tta.max_detections=50")
    assert note.startswith("tta.max_detections=50 keeps at most 50 boxes of an image, but data.max_detections")


@pytest.mark.parametrize(
    ("model", "key"), [("rpn", "model.drop_crossing"), ("faster_rcnn", "model.proposals.drop_crossing")]
)
def test_an_rpn_without_an_anchor_inside_any_image_is_refused(
    model: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"drop_crossing=true of the RPN leaves no anchor.* 64 x 64 px .*data\.size"):
        said(tmp_path, capsys, f"model={model}", *RPN, f"{key}=true")
    assert said(tmp_path, capsys, f"model={model}", *RPN, f"{key}=true", "data.size=192") == []
    assert said(tmp_path, capsys, f"model={model}", *RPN, f"{key}=true", "multiscale=small") == []
    assert said(tmp_path, capsys, f"model={model}", *RPN) == []


def gradients(detector: Detector, steps: list[Batch]) -> torch.Tensor:
    """Of the mean loss of accumulated steps, as Lightning adds them up; batch norms, which see a step, left out."""
    detector.double().eval().zero_grad()
    for batch in steps:
        (sum(detector.loss(batch).values()) / len(steps)).backward()
    return torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None])


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """Some images of a batch, with their boxes and ids."""
    own = {name: getattr(batch, name)[start:stop] for name in ("images", "sizes", "original_sizes", "ids")}
    return batch._replace(**own, targets=Targets(*(field[start:stop] for field in batch.targets)), proposals=None)


@pytest.fixture
def four() -> Batch:
    """One box in each of the first two images, one small and four in the others."""
    boxes = [[[4, 4, 36, 30]], [[8, 10, 40, 50]], [[2, 2, 12, 12]], [[i, i, i + 24, i + 30] for i in (0, 8, 20, 30)]]
    return make_batch(boxes, [[0], [1], [2], [0, 1, 2, 0]])


@pytest.mark.parametrize(
    ("choices", "two_by_two", "one_by_one"),
    [
        (["model=retinanet"], (0.01, 0.5), (0.05, 1.5)),
        (["model=ssd"], (0.01, 0.5), (0.05, 1.5)),
        (["model=rpn"], (0, 1e-12), (0, 1e-12)),  # every image gives as many anchors
        (["model=retinanet", "model.criterion.normalizer=images"], (0, 1e-12), (0, 1e-12)),
        (["model=yolo"], (0, 1e-12), (0, 1e-12)),
    ],
)
def test_accumulated_steps_differ_from_one_batch_by_what_is_counted_in_each(
    choices: list[str], two_by_two: tuple[float, float], one_by_one: tuple[float, float], four: Batch
) -> None:
    """docs/training.md, "Accumulated steps"."""
    detector = detlab.build_detector([*choices, "model.backbone.weights=null"], num_classes=3)
    whole = gradients(detector, [four])
    for images, (least, most) in {2: two_by_two, 1: one_by_one}.items():
        parts = gradients(detector, [rows(four, i, i + images) for i in range(0, 4, images)])
        assert least <= (parts - whole).norm() / whole.norm() < most


def test_accumulation_with_counted_losses_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accumulated = ["trainer.accumulate_grad_batches=4", "data.batch_size=2"]
    (note,) = said(tmp_path, capsys, "model=retinanet", *accumulated)
    assert note.startswith("trainer.accumulate_grad_batches=4: the learning rate follows all 8 images, but losses are ")
    assert "(normalizer=positives) of each step of 2, so gradients differ from those of one batch of 8" in note
    assert said(tmp_path, capsys, "model=retinanet", *accumulated, "model.criterion.normalizer=images") == []
    assert said(tmp_path, capsys, "model=yolo", *accumulated) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mode": "short_side", "size": 64, "max_size": None}, "short_side 64 px"),
        ({"mode": "short_side", "size": 160, "max_size": 256}, "short_side 160, at most 256 px"),
        ({"mode": "warp", "size": 300, "max_size": None}, "warp 300 x 300 px (height x width)"),
        ({"mode": "letterbox", "size": [320, 416], "max_size": None}, "letterbox 320 x 416 px (height x width)"),
    ],
)
def test_the_input_size_is_that_of_the_data(options: dict[str, Any], line: str) -> None:
    """Also where a data config of one's own has no such keys."""
    assert input_line(Resize(**options)) == line
