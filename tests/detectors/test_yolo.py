"""YOLO: published structure of all three versions, parts that swap, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detlab import build_detector
from detlab.tensors.structures import Batch, Prediction
from tests.batches import make_batch

CPU = torch.device("cpu")
V3 = ["model=yolo", "model/backbone=darknet53", "data.size=416"]
V2 = ["model=yolov2", "model/backbone=darknet19", "data.size=416"]
V1 = ["model=yolov1", "model/backbone=extraction", "data.size=448"]
PAPER = ["model/head=yolo_fc", "model.backbone.norm=none", "model.neck.norm=none"]
SMALL = {
    "yolo": ["model.neck.widths=[16, 16, 16]"],
    "yolov2": ["model.neck.width=32", "model.neck.squeeze=8", "model.head.width=32"],
    "yolov1": ["model.neck.width=16", "model.head.width=8", "data.size=128"],
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def batch() -> Batch:
    """Three images of 128 px, the last without boxes."""
    return make_batch([[[4, 4, 36, 30], [40, 44, 90, 90]], [[8, 10, 120, 50]], []], [[0, 2], [1], []], side=128)


@pytest.mark.parametrize(
    ("options", "classes", "total"),
    [
        (V3, 80, 61_949_149),
        (V3, 20, 61_626_049),
        (V2, 80, 50_962_889),
        (V2, 20, 50_655_389),
        ([*V1, *PAPER], 20, 271_703_550),
        (V1, 20, 194_228_350),
    ],
)
def test_published_parameters(options: list[str], classes: int, total: int) -> None:
    with torch.device("meta"):
        assert count(build_detector(options, num_classes=classes)) == total


@pytest.mark.parametrize(
    ("options", "side", "boxes"),
    [
        (V1, 448, 98),
        (V2, 416, 845),
        (V2, 544, 1445),
        (V2, 608, 1805),
        (V3, 320, 6300),
        (V3, 416, 10_647),
        (V3, 608, 22_743),
    ],
)
def test_published_numbers_of_boxes(options: list[str], side: int, boxes: int) -> None:
    with torch.device("meta"):
        detector = build_detector(options, num_classes=20)
        out = detector.head(detector.neck(detector.backbone(torch.empty(2, 3, side, side))))
        assert detector.anchors.with_cells(detector.neck.levels, (side, side), torch.device("meta")).shape[1] == boxes
    assert out.logits.shape == (2, boxes, 20)
    assert out.deltas.shape == (2, boxes, 4)
    assert out.objectness.shape == (2, boxes)


def test_yolov1s_outputs_lie_in_darknets_order() -> None:
    """1470 numbers: classes of all cells, confidences of all boxes, then x, y, w, h of all boxes."""
    with torch.device("meta"):
        head = build_detector(V1, num_classes=20).head
    numbers = torch.arange(1470.0)
    classes, confidence, boxes = head._blocks(numbers)
    assert classes.shape == (1, 49, 20)
    assert classes[0, 3, 7] == 3 * 20 + 7
    assert confidence[0, 5] == 980 + 5
    assert boxes[0, 5].tolist() == [1078 + 20, 1078 + 21, 1078 + 22, 1078 + 23]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("yolo", []),
        ("yolov2", []),
        ("yolov1", []),
        ("yolo", ["model/box_loss=giou", "model/cls_loss=cross_entropy", "model/obj_loss=focal"]),
        ("yolov1", ["model/box_loss=smooth_l1", "model/cls_loss=focal", "model/obj_loss=iou_bce"]),
        ("yolov2", ["model/box_loss=ciou", "model/cls_loss=hinge", "model/obj_loss=bce"]),
        ("yolo", ["model/box_loss=squared", "model/cls_loss=squared", "model/obj_loss=squared"]),
        ("yolov1", ["model/box_loss=l1", "model/cls_loss=softmax", "model.criterion.normalizer=positives"]),
    ],
)
def test_losses_swap_in_every_version(model: str, options: list[str]) -> None:
    torch.manual_seed(0)
    detector = build_detector([f"model={model}", *SMALL[model], *options], num_classes=3).train()
    losses = detector.loss(batch()._replace(seen=torch.tensor(0)))
    assert list(losses) == ["loss_obj", "loss_cls", "loss_box"]
    sum(losses.values()).backward()
    assert all(value.isfinite() and value > 0 for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert any(p.grad.any() for p in detector.backbone.parameters())
    found = detector.eval().detect(batch())
    assert found.boxes.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        ["model/neck=none", "model.neck.level=C5"],
        ["model/neck=hierarchy"],
        ["model/neck=spp"],
        ["model/neck=fpn", "model.neck.width=32"],
        ["model/neck=passthrough", "model.neck.width=32"],
        ["model/neck=yolo_grid", "model.neck.width=32"],
        ["model/neck=ssd_extras"],
        ["model/neck=hierarchy", "model/backbone=darknet19"],
        ["model/neck=hierarchy", "model/anchors=ssd_formula"],
        ["model/neck=hierarchy", "model/anchors=retinanet"],
        ["model/neck=hierarchy", "model/coder=unit", "model/matcher=retinanet"],
        ["model/neck=hierarchy", "model/coder=cell", "model/matcher=responsible", "model/box_loss=squared"],
    ],
)
def test_necks_anchors_and_assignment_swap(options: list[str]) -> None:
    box = [] if any("box_loss" in o for o in options) else ["model/box_loss=giou"]
    detector = build_detector(["model=yolo", "model.head.width=16", *options, *box], num_classes=3).train()
    losses = detector.loss(batch())
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None for p in detector.parameters())
    assert len(detector.eval().detect(batch()).boxes) == 3


@pytest.mark.parametrize("model", ["yolo", "yolov2", "yolov1"])
def test_images_without_boxes_teach_objectness_alone(model: str) -> None:
    detector = build_detector([f"model={model}", *SMALL[model]], num_classes=3)
    losses = detector.loss(make_batch([[], []], [[], []], side=128))
    assert losses["loss_obj"] > 0
    assert (losses["loss_cls"], losses["loss_box"]) == (0, 0)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def test_bfloat16_losses_are_those_of_float32() -> None:
    torch.manual_seed(0)
    detector = build_detector(["model=yolo", *SMALL["yolo"]], num_classes=3).eval()
    full = detector.loss(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = detector.loss(batch())
    for name, value in full.items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], value, rtol=0.05, atol=0.05)


def test_scores_are_objectness_times_class() -> None:
    """One sure anchor of class 2, all others without an object."""
    detector = build_detector(["model=yolo", *SMALL["yolo"]], num_classes=3).eval()
    references = detector.anchors.with_cells(detector.neck.levels, (128, 128), CPU)
    rows = references.shape[1]
    logits, objectness = torch.full((1, rows, 3), -20.0), torch.full((1, rows), -20.0)
    logits[0, 700, 2], objectness[0, 700] = 1.0, 2.0
    detector.head.forward = lambda _: Prediction(logits, torch.zeros(1, rows, 4), objectness)
    found = detector.detect(make_batch([[]], [[]], side=128), {})
    assert found.labels[0, :2].tolist() == [2, -1]
    assert found.scores[0, 0] == pytest.approx(float(torch.tensor(1.0).sigmoid() * torch.tensor(2.0).sigmoid()))
    torch.testing.assert_close(found.boxes[0, 0], references[0, 700, :4].clamp(0, 128))


def test_the_grey_of_padding_is_the_models() -> None:
    grey = build_detector(["model=yolo", "model/neck=hierarchy", "model.head.width=8"], num_classes=3).eval()
    given = batch()._replace(sizes=torch.tensor([[128, 64]] * 3))
    painted = given.images.clone()
    painted[..., 64:] = 255  # what lies outside the image does not matter
    features = grey.features(given)
    assert all(torch.equal(v, features[k]) for k, v in grey.features(given._replace(images=painted)).items())
    grey.pad_value = None
    assert not torch.equal(grey.features(given)["C3"], features["C3"])
    with pytest.raises(ValueError, match="model.pad_value=300.0 must be a number from 0 to 255, or null"):
        build_detector(["model=yolo", "model.pad_value=300.0"], num_classes=3)


def test_a_connected_head_reads_one_canvas_and_one_map() -> None:
    detector = build_detector(["model=yolov1", *SMALL["yolov1"]], num_classes=3)
    with pytest.raises(
        ValueError, match=r"made for a canvas of \[128, 128\] px and a map of \[2, 2\], but got a map of"
    ):
        detector.loss(make_batch([[]], [[]], side=256))
    with pytest.raises(ValueError, match="model.head reads one map, but model.neck gives 3; use model/neck=yolo_grid"):
        build_detector(["model=yolov1", "model/neck=hierarchy"], num_classes=3)
