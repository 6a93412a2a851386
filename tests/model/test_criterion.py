"""Reduction of losses against sums done by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from detlab.model.coders import BoxCoder
from detlab.model.criterion import NORMALIZERS, Criterion, share_of_processes
from detlab.model.losses import BCELoss, CrossEntropyLoss, FocalLoss, GIoULoss, SmoothL1Loss
from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE, BipartiteMatcher, IoUMatcher
from detlab.model.samplers import AllSampler, HardNegativeSampler, OHEMSampler, RandomSampler, Sampler
from detlab.tensors.structures import Prediction
from tests.batches import make_batch

ANCHORS = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 20], [30, 30, 40, 40], [100, 100, 120, 120]]])
KEYS = torch.tensor([1, 2])


def criterion(normalizer: str = "positives", **options: Any) -> Criterion:
    parts = {
        "matcher": IoUMatcher(positive=0.6, negative=0.4, force_best=False),
        "sampler": AllSampler(),
        "cls_loss": BCELoss(),
        "box_loss": SmoothL1Loss(beta=1.0),
        "coder": BoxCoder(),
    }
    return Criterion(**(parts | options), normalizer=normalizer)


@pytest.fixture
def two_images(targets: Callable) -> Any:
    """Image 0: anchor 0 positive (class 1), anchor 1 ignored (IoU 0.5), the others negative. Image 1: empty."""
    return targets([[[0, 0, 10, 10]], []], [[1], []])


def test_assignment(two_images: Any) -> None:
    found = criterion().assign(ANCHORS, two_images, num_classes=3)
    assert found.labels.tolist() == [[1, 3, 3, 3], [3, 3, 3, 3]]
    assert found.state.tolist() == [[POSITIVE, IGNORED, NEGATIVE, NEGATIVE], [NEGATIVE] * 4]
    assert torch.equal(found.boxes[0, 0], torch.tensor([0.0, 0, 10, 10]))
    assert torch.equal(found.boxes[1], ANCHORS[0])


@pytest.mark.parametrize(
    ("normalizer", "cls_count", "box_count"),
    [("positives", 1, 1), ("sampled", 7, 7), ("paper", 7, 2 * 50)],
)
def test_normalisers(two_images: Any, normalizer: str, cls_count: int, box_count: int) -> None:
    made = criterion(normalizer)
    assignment = made.assign(ANCHORS, two_images, 3)
    deltas = torch.full((2, 4, 4), 0.5)  # smooth L1 with beta 1: 0.125 a coordinate
    found = made(Prediction(torch.zeros(2, 4, 3), deltas), ANCHORS, assignment, KEYS, 0, locations=50)
    ln2 = torch.log(torch.tensor(2.0)).item()
    assert found["loss_cls"].item() == pytest.approx(7 * 3 * ln2 / cls_count, rel=1e-5)
    assert found["loss_box"].item() == pytest.approx(4 * 0.125 / box_count, rel=1e-5)


def test_normaliser_per_image_is_torchvisions(two_images: Any) -> None:
    made = criterion("images")
    assignment = made.assign(ANCHORS, two_images, 3)
    found = made(Prediction(torch.zeros(2, 4, 3), torch.full((2, 4, 4), 0.5)), ANCHORS, assignment, KEYS, 0)
    ln2 = torch.log(torch.tensor(2.0)).item()
    assert found["loss_cls"].item() == pytest.approx((3 * 3 * ln2 / 1 + 4 * 3 * ln2 / 1) / 2, rel=1e-5)
    assert found["loss_box"].item() == pytest.approx(0.5 / 2, rel=1e-5)


def test_rpn_loss_of_two_anchors_in_caffes_and_the_papers_units() -> None:
    """Differences (.05,-.2,0,1) and (.3,0,-.05,-.5): sum 1.800278 at sigma 3."""
    total = 1.800278
    made = criterion("sampled", box_loss=SmoothL1Loss(beta=1 / 9))
    anchors = torch.tensor([[[0.0, 0, 10, 10]]]).repeat(1, 256, 1)
    state = torch.full((1, 256), NEGATIVE, dtype=torch.int8)
    state[0, :2] = POSITIVE
    assignment = made.assign(anchors, _empty(), 1)._replace(state=state, labels=(state != POSITIVE).long())
    deltas = torch.zeros(1, 256, 4)
    deltas[0, :2] = torch.tensor([[0.05, -0.2, 0, 1], [0.3, 0, -0.05, -0.5]])
    prediction = Prediction(torch.zeros(1, 256, 1), deltas)
    caffe = made(prediction, anchors, assignment, KEYS[:1], 0)["loss_box"].item()
    assert caffe == pytest.approx(total / 256, rel=1e-5)
    paper = criterion("paper", box_loss=SmoothL1Loss(beta=1 / 9), cls_loss=BCELoss())
    paper.box_weight = 10.0
    assert paper(prediction, anchors, assignment, KEYS[:1], 0, locations=2400)["loss_box"].item() == pytest.approx(
        10 * total / 2400, rel=1e-5
    )


def _empty() -> Any:
    return make_batch([[]], [[]]).targets


def test_per_class_boxes_use_the_true_classs_row(two_images: Any) -> None:
    made = criterion(cls_loss=CrossEntropyLoss())
    assignment = made.assign(ANCHORS, two_images, 3)
    deltas = torch.zeros(2, 4, 3, 4)
    deltas[:, :, 1] = 0.5
    deltas[:, :, 0] = 9.0
    found = made(Prediction(torch.zeros(2, 4, 4), deltas), ANCHORS, assignment, KEYS, 0)
    assert found["loss_box"].item() == pytest.approx(0.5)


def test_no_positive_gives_no_box_loss_and_finite_gradients(targets: Callable) -> None:
    for box_loss in (SmoothL1Loss(beta=1), GIoULoss()):
        made = criterion(box_loss=box_loss, cls_loss=FocalLoss())
        truth = targets([[], []], [[], []])
        logits = torch.zeros(2, 4, 3, requires_grad=True)
        deltas = torch.full((2, 4, 4), 50.0, requires_grad=True)
        losses = made(Prediction(logits, deltas), ANCHORS, made.assign(ANCHORS, truth, 3), KEYS, 0)
        sum(losses.values()).backward()
        assert losses["loss_box"].item() == 0
        assert logits.grad.abs().sum() > 0
        assert deltas.grad.abs().sum() == 0


def test_ssd_kind_of_sampling_has_no_term_for_an_empty_image(targets: Callable) -> None:
    made = criterion(sampler=HardNegativeSampler(ratio=3), cls_loss=CrossEntropyLoss())
    truth = targets([[], []], [[], []])
    losses = made(
        Prediction(torch.randn(2, 4, 4), torch.randn(2, 4, 4)), ANCHORS, made.assign(ANCHORS, truth, 3), KEYS, 0
    )
    assert [v.item() for v in losses.values()] == [0, 0]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize(
    "sampler",
    [AllSampler(), RandomSampler(size=4, positive_fraction=0.5), HardNegativeSampler(ratio=3), OHEMSampler(size=4)],
)
def test_without_an_anchor_losses_are_zero_and_gradients_defined(
    normalizer: str, sampler: Sampler, two_images: Any
) -> None:
    for matcher in (IoUMatcher(positive=0.6, negative=0.4, force_best=True), BipartiteMatcher()):
        made = criterion(normalizer, matcher=matcher, sampler=sampler, box_loss=GIoULoss(), cls_loss=FocalLoss())
        weight = torch.ones((), requires_grad=True)  # of a layer before the outputs
        prediction = Prediction(torch.zeros(2, 0, 3) * weight, torch.zeros(2, 0, 4) * weight)
        losses = made(prediction, ANCHORS[:, :0], made.assign(ANCHORS[:, :0], two_images, 3), KEYS, 0)
        sum(losses.values()).backward()
        assert [v.item() for v in losses.values()] == [0, 0]
        assert weight.grad == 0


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_where_no_anchor_may_be_used_losses_are_zero_and_gradients_defined(normalizer: str, two_images: Any) -> None:
    """An RPN with drop_crossing on an image smaller than every anchor."""
    made = criterion(normalizer, sampler=RandomSampler(size=4, positive_fraction=0.5))
    assignment = made.assign(ANCHORS, two_images, 3, usable=torch.zeros(2, 4, dtype=torch.bool))
    assert (assignment.state == IGNORED).all()
    logits, deltas = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 4, requires_grad=True)
    losses = made(Prediction(logits, deltas), ANCHORS, assignment, KEYS, 0)
    sum(losses.values()).backward()
    assert [v.item() for v in losses.values()] == [0, 0]
    assert not logits.grad.any()
    assert not deltas.grad.any()


def test_the_same_image_is_sampled_alike_at_any_place() -> None:
    made = criterion("sampled", sampler=RandomSampler(size=8, positive_fraction=0.5))
    anchors = torch.rand(1, 300, 4).sort(dim=-1).values * 100
    prediction = Prediction(torch.randn(2, 300, 3), torch.randn(2, 300, 4))
    empty = _empty()
    both = type(empty)(*(torch.cat([x, x]) for x in empty))
    whole = made(prediction, anchors, made.assign(anchors, both, 3), KEYS, 1)["loss_cls"]
    each = [
        made(
            Prediction(*(v[i : i + 1] for v in prediction[:2])),
            anchors,
            made.assign(anchors, empty, 3),
            KEYS[i : i + 1],
            1,
        )
        for i in (0, 1)
    ]
    torch.testing.assert_close(whole, (each[0]["loss_cls"] + each[1]["loss_cls"]) / 2)


def test_losses_stay_float32_under_autocast(two_images: Any) -> None:
    made = criterion()
    logits = torch.zeros(2, 4, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(
            Prediction(logits, torch.zeros(2, 4, 4).bfloat16()), ANCHORS, made.assign(ANCHORS, two_images, 3), KEYS, 0
        )
    assert all(v.dtype == torch.float32 for v in found.values())


def test_a_count_without_processes_is_at_least_one() -> None:
    assert share_of_processes(torch.tensor(0), torch.float64).item() == 1
    assert share_of_processes(torch.tensor(7), torch.float32).item() == 7


def test_unknown_normaliser_is_refused() -> None:
    with pytest.raises(ValueError, match="model.criterion.normalizer=mean is not known; use one of positives"):
        criterion("mean")
