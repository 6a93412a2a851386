"""SSD: published structure, every switch of its ablation, losses that fit, an honest N."""

import pytest
import torch
from torch import nn

from detlab import build_detector
from detlab.tensors.structures import Batch
from tests.batches import make_batch

SSD300 = ["model=ssd", "model/backbone=vgg16", "data.size=300"]
SSD512 = ["model=ssd", "model/backbone=vgg16", "model/neck=ssd512_extras", "model/anchors=ssd512", "data.size=512"]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("options", "classes", "total"),
    [
        (SSD300, 20, 26_285_486),
        (SSD300, 80, 34_305_206),
        (SSD512, 20, 27_188_676),
        (SSD512, 80, 36_038_196),
    ],
)
def test_published_parameters(options: list[str], classes: int, total: int) -> None:
    with torch.device("meta"):
        detector = build_detector(options, num_classes=classes)
    assert count(detector) == total


@pytest.mark.parametrize(("options", "side", "anchors"), [(SSD300, 300, 8732), (SSD512, 512, 24_564)])
def test_predictions_and_boxes_agree(options: list[str], side: int, anchors: int) -> None:
    with torch.device("meta"):
        detector = build_detector(options, num_classes=20)
        logits, deltas, _ = detector.head(detector.neck(detector.backbone(torch.zeros(1, 3, side, side))))
    assert logits.shape == (1, anchors, 21)
    assert deltas.shape == (1, anchors, 4)
    assert detector.anchors(detector.neck.levels, (side, side), torch.device("cpu")).shape == (1, anchors, 4)


@pytest.mark.parametrize(
    ("options", "boxes"),
    [
        ([], 8732),
        (["model.anchors.ratios=[2]"], 4 * 1940),
        (["model.anchors.ratios=[]"], 2 * 1940),
        (["model.anchors.extra_square=false"], 8732 - 1940),
        (["model.neck.sources=[C3,fc7,extra1,extra2,extra3]"], 8728),
        (["model.neck.sources=[C3,fc7]"], 5776 + 2166),
        (["model.neck.atrous=false"], 8732),
        (["model/anchors=ssd_formula"], 11_640),
        (["model/backbone=resnet50"], 8732),
    ],
)
def test_rows_of_the_ablation_build(options: list[str], boxes: int) -> None:
    with torch.device("meta"):
        detector = build_detector([*SSD300, *options], num_classes=20)
    assert detector.anchors(detector.neck.levels, (300, 300), torch.device("cpu")).shape[1] == boxes


@pytest.mark.parametrize("cls_loss", ["cross_entropy", "bce", "focal"])
@pytest.mark.parametrize("canvas", [96, (97, 131)])
def test_any_canvas_from_96_px(cls_loss: str, canvas: int | tuple[int, int]) -> None:
    detector = build_detector(["model=ssd", "data.size=96", f"model/cls_loss={cls_loss}"], num_classes=3)
    batch = make_batch([[[4, 4, 36, 30], [40, 44, 90, 90]], [[8, 10, 40, 50]]], [[0, 2], [1]], side=canvas)
    losses = detector.loss(batch)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None for p in detector.parameters())
    found = detector.eval().detect(batch)
    assert found.boxes.shape == (2, 200, 4)


def test_an_empty_batch_costs_nothing(empty_batch: Batch) -> None:
    losses = build_detector(["model=ssd"], num_classes=3).loss(empty_batch)
    assert [value.item() for value in losses.values()] == [0, 0]


def test_an_empty_image_beside_another_adds_nothing() -> None:
    """N counts the matched boxes of the batch, and an image without any has no negatives."""
    torch.manual_seed(0)
    detector = build_detector(["model=ssd", "data.size=64", "model.backbone.norm=gn"], num_classes=3)
    one = make_batch([[[4, 4, 36, 30]]], [[0]])
    two = make_batch([[[4, 4, 36, 30]], []], [[0], []])
    two = two._replace(images=torch.cat([one.images, two.images[1:]]))
    with torch.no_grad():
        a, b = detector.loss(one), detector.loss(two)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_a_batch_without_matches_has_the_batchs_count_as_its_divisor(small_batch: Batch) -> None:
    detector = build_detector(["model=ssd", "data.size=64"], num_classes=3)
    anchors = detector.anchors(detector.neck.levels, (64, 64), torch.device("cpu"))
    assignment = detector.criterion.assign(anchors, small_batch.targets, 3)
    positives = (assignment.state == 1).sum(1)
    assert (positives >= torch.tensor([2, 1])).all()  # each box has an anchor of its own
    logits = torch.randn(2, anchors.shape[1], 4)
    chosen = detector.criterion.sampler(
        assignment.state, detector.criterion.cls_loss(logits, assignment.labels), logits[..., 0]
    )
    assert (chosen.sum(1) == 4 * positives).all()  # and three negatives
