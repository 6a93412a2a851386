"""RefineDet: published structure, the switches of its ablation, what flows between its two steps."""

import pytest
import torch
from torch import nn

from detlab import build_detector
from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE
from detlab.tensors.structures import Batch
from tests.batches import make_batch

CPU = torch.device("cpu")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("classes", "side", "total"), [(20, 320, 34_440_884), (80, 512, 36_100_484)])
def test_published_parameters_and_anchors(classes: int, side: int, total: int) -> None:
    with torch.device("meta"):
        options = ["model=refinedet", "model/backbone=vgg16", f"data.size={side}"]
        detector = build_detector(options, num_classes=classes)
        maps = detector.neck(detector.backbone(torch.zeros(1, 3, side, side)))
        first = detector.arm(maps)
        second = detector.head(detector.connection(maps))
    assert count(detector) == total
    assert count(detector.arm) == 414_792
    assert count(detector.head) == (691_500 if classes == 20 else 2_351_100)
    anchors = 6375 if side == 320 else 16_320
    assert detector.anchors(detector.neck.levels, (side, side), CPU).shape == (1, anchors, 4)
    assert first.logits.shape == (1, anchors, 2)
    assert second.logits.shape == (1, anchors, classes + 1)


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return build_detector(["model=refinedet", "data.size=96"], num_classes=3)


@pytest.fixture
def batch() -> Batch:
    return make_batch([[[4, 4, 36, 30], [40, 44, 90, 90]], [[8, 10, 40, 50]]], [[0, 2], [1]], side=96)


def test_the_second_step_sends_no_gradient_into_the_first(detector: nn.Module, batch: Batch) -> None:
    detector.zero_grad()
    losses = detector.loss(batch)
    assert list(losses) == ["arm/loss_cls", "arm/loss_box", "loss_cls", "loss_box"]
    (losses["loss_cls"] + losses["loss_box"]).backward(retain_graph=True)
    assert all(p.grad is None for p in detector.arm.parameters())
    assert all(p.grad is not None for p in detector.connection.parameters())
    (losses["arm/loss_cls"] + losses["arm/loss_box"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize(
    "options",
    [
        ["model.negative_filtering=null"],
        ["model.negative_filtering=null", "model.two_step=false", "model.tcb=false"],
        ["model/cls_loss@model.arm.cls_loss=bce", "model/box_loss=giou", "model/anchors=ssd"],
    ],
)
def test_every_switch_trains_with_every_parameter(options: list[str], batch: Batch) -> None:
    detector = build_detector(["model=refinedet", "data.size=96", *options], num_classes=3)
    losses = detector.loss(batch)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None for p in detector.parameters())
    assert (detector.connection is None) == ("model.tcb=false" in options)


def test_sure_background_is_no_negative_and_scores_nothing(detector: nn.Module, batch: Batch) -> None:
    """The ARM made sure of background everywhere: the ODM keeps its positives and loses every negative."""
    with torch.no_grad():
        features = detector.features(batch)
        anchors = detector.anchors(detector.neck.levels, batch.canvas, CPU)
        first = detector.arm(features)
        sure = first._replace(logits=torch.tensor([0.0, 5.0]).expand(first.logits.shape))  # p(background) = 0.9933
        unsure = first._replace(logits=torch.tensor([0.0, 4.0]).expand(first.logits.shape))  # 0.982
        assignment = detector.criterion.assign(detector.arm.refine(first, anchors), batch.targets, 3)
        kept = detector._without_easy(assignment, sure)
        assert (kept.state == POSITIVE).equal(assignment.state == POSITIVE)
        assert (kept.state == POSITIVE).any()
        assert not (kept.state == NEGATIVE).any()
        assert (kept.state == IGNORED).any()
        assert detector._without_easy(assignment, unsure).state.equal(assignment.state)
        assert len(detector.detect(batch, features).boxes)
        for conv in detector.arm.head.cls.values():
            conv.bias.copy_(torch.tensor([0.0, 100.0]).repeat(len(conv.bias) // 2))
        try:
            assert not detector.detect(batch, features).real.any()
        finally:
            for conv in detector.arm.head.cls.values():
                conv.bias.zero_()


def test_matching_is_done_on_refined_anchors(detector: nn.Module, batch: Batch) -> None:
    """An ARM that puts every anchor onto the first box makes every anchor positive for the ODM, none for itself."""
    anchors = detector.anchors(detector.neck.levels, batch.canvas, CPU)
    wanted = detector.arm.criterion.coder.encode(anchors, batch.targets.boxes[:, :1])
    refined = detector.arm.refine(detector.arm(detector.features(batch))._replace(deltas=wanted), anchors)
    torch.testing.assert_close(refined, batch.targets.boxes[:, :1].expand_as(refined), atol=0.1, rtol=0)
    state = detector.criterion.assign(refined, batch.targets, 3).state
    assert (state == POSITIVE).all()
    assert not (detector.criterion.assign(anchors, batch.targets, 3).state == POSITIVE).all()


def test_a_background_confidence_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"model.negative_filtering=1.5 must be a number"):
        build_detector(["model=refinedet", "model.negative_filtering=1.5"], num_classes=3)
