"""The region proposal network: its training targets and its loss in the units of papers and public code."""

from __future__ import annotations

import pytest
import torch

from detlab.model.anchors import CaffeAnchors
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.losses import BCELoss, SmoothL1Loss
from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE, IoUMatcher
from detlab.model.proposals import STAGE
from detlab.model.samplers import RandomSampler
from detlab.tensors.boxes import within
from detlab.tensors.structures import Level, Prediction
from tests.batches import make_batch

CPU = torch.device("cpu")
MAP_40_BY_60 = (640, 960)  # the canvas whose stride-16 map has the paper's 2,400 locations
IMAGE = torch.tensor([[600, 1000]])


@pytest.fixture
def anchors() -> torch.Tensor:
    return CaffeAnchors(sizes=[128, 256, 512])([Level("C4", 1, 16)], MAP_40_BY_60, CPU)


def criterion(normalizer: str = "sampled", box_weight: float = 1.0) -> Criterion:
    return Criterion(
        matcher=IoUMatcher(positive=0.7, negative=0.3, force_best=True),
        sampler=RandomSampler(size=256, positive_fraction=0.5),
        cls_loss=BCELoss(),
        box_loss=SmoothL1Loss(beta=1 / 9),
        coder=BoxCoder(),
        normalizer=normalizer,
        box_weight=box_weight,
    )


def test_nine_anchors_on_a_map_of_60_by_40(anchors: torch.Tensor) -> None:
    """Faster R-CNN section 3.1.1's "about 20,000", and those that lie inside an image of 1000 x 600."""
    assert anchors.shape == (1, 21_600, 4)
    assert within(anchors, IMAGE).sum() == 8_151


def test_anchors_across_the_border_are_left_out_of_the_targets_only(anchors: torch.Tensor) -> None:
    targets = make_batch([[[0.0, 0, 100, 60], [300, 200, 560, 460]]], [[0, 0]], side=(600, 1000)).targets
    made = criterion()
    inside = within(anchors, IMAGE)
    every = made.assign(anchors, targets, 1)
    kept = made.assign(anchors, targets, 1, usable=inside)
    assert (kept.state[~inside] == IGNORED).all()
    assert (every.state[~inside] != IGNORED).any()
    assert (kept.state != IGNORED).sum() <= 8_151
    for box in targets.boxes[0]:  # also the one in the corner, whose best anchor of all crosses the border
        own = (kept.state == POSITIVE) & (kept.boxes == box).all(-1)
        assert own.any()
        assert inside[own].all()


def test_positives_and_negatives_stay_as_they_are_inside(anchors: torch.Tensor) -> None:
    targets = make_batch([[[300.0, 200, 560, 460]]], [[0]], side=(600, 1000)).targets
    inside = within(anchors, IMAGE)
    every, kept = criterion().assign(anchors, targets, 1), criterion().assign(anchors, targets, 1, usable=inside)
    assert torch.equal(every.state[inside], kept.state[inside])


@pytest.mark.parametrize(
    ("normalizer", "weight", "expected"),
    [("sampled", 1.0, 0.00703234), ("paper", 10.0, 0.00750116)],
    ids=["Caffe code: lambda 1 over 256 anchors", "paper: lambda 10 over 2,400 locations"],
)
def test_box_loss_in_both_normalisations(
    anchors: torch.Tensor, normalizer: str, weight: float, expected: float
) -> None:
    """Two positives with differences (.05, -.2, 0, 1) and (.3, 0, -.05, -.5) among 256 sampled, sigma 3.

    Caffe's layer: inside weights 1 for positives, outside weights 1/256 for all sampled, batch of one.
    """
    made = criterion(normalizer, weight)
    state = torch.full((1, 21_600), NEGATIVE, dtype=torch.int8)
    state[0, [7_000, 9_000]] = POSITIVE
    empty = make_batch([[]], [[]], side=64).targets
    assignment = made.assign(anchors, empty, 1)._replace(state=state, labels=(state != POSITIVE).long())
    differences = torch.zeros(1, 21_600, 4)
    differences[0, 7_000] = torch.tensor([0.05, -0.2, 0, 1])
    differences[0, 9_000] = torch.tensor([0.3, 0, -0.05, -0.5])
    prediction = Prediction(torch.zeros(1, 21_600, 1), differences)
    losses = made(prediction, anchors, assignment, torch.tensor([1]), STAGE, locations=2_400)
    assert losses["loss_box"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_cls"].item() == pytest.approx(0.693147, rel=1e-5)  # ln 2 over the 256 sampled


def test_caffes_inside_and_outside_weights() -> None:
    """sum outside * f(inside * (pred - target)) / num, written out, against the criterion's masks and normaliser."""
    made = criterion()
    generator = torch.Generator().manual_seed(0)
    count, sigma = 256, 3.0
    state = torch.full((1, count), NEGATIVE, dtype=torch.int8)
    state[0, :40] = POSITIVE
    deltas = torch.randn(1, count, 4, generator=generator, requires_grad=True)
    anchors = torch.tensor([[[0.0, 0, 32, 32]]]).repeat(1, count, 1)
    empty = make_batch([[]], [[]], side=64).targets
    assignment = made.assign(anchors, empty, 1)._replace(state=state, labels=(state != POSITIVE).long())
    ours = made(Prediction(torch.zeros(1, count, 1), deltas), anchors, assignment, torch.tensor([1]), STAGE)
    inside = (state == POSITIVE).float()[..., None]
    x = inside * deltas.detach()  # targets are zero: every box is its anchor
    smooth = torch.where(x.abs() < 1 / sigma**2, 0.5 * (sigma * x) ** 2, x.abs() - 0.5 / sigma**2)
    outside = torch.full((1, count, 1), 1 / count)
    assert ours["loss_box"].item() == pytest.approx((outside * smooth).sum().item(), rel=1e-5)
    ours["loss_box"].backward()
    slope = torch.where(x.abs() < 1 / sigma**2, sigma**2 * x, x.sign())
    torch.testing.assert_close(deltas.grad, outside * inside * slope)
