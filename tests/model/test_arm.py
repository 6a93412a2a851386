"""The first step of RefineDet, and the second on top of it, by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor

from detlab.model.arm import AnchorRefinement
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.heads import PerLevelHead
from detlab.model.losses import BCELoss, CrossEntropyLoss, SmoothL1Loss
from detlab.model.matchers import BipartiteMatcher
from detlab.model.samplers import HardNegativeSampler
from detlab.tensors.structures import Level, Prediction

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))


def arm(cls_loss: torch.nn.Module) -> AnchorRefinement:
    return AnchorRefinement(
        levels=[Level("A", 4, 8)], num_anchors=[3], head=PerLevelHead, criterion=partial(Criterion),
        matcher=BipartiteMatcher(), sampler=HardNegativeSampler(ratio=3), coder=CODER, cls_loss=cls_loss,
        box_loss=SmoothL1Loss(beta=1.0),
    )  # fmt: skip


def centre_form(boxes: Tensor) -> list[float]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=-1).flatten().tolist()


def test_two_steps_of_decoding() -> None:
    """Prior (.5, .5, .2, .4) as centre and size, offsets (1, -1, .5, -.5), then (1, 1, 0, 1); variances .1 and .2."""
    prior = torch.tensor([[[0.4, 0.3, 0.6, 0.7]]])
    first = Prediction(torch.zeros(1, 1, 2), torch.tensor([[[1.0, -1, 0.5, -0.5]]], requires_grad=True))
    refined = arm(CrossEntropyLoss()).refine(first, prior)
    assert centre_form(refined) == pytest.approx([0.52, 0.46, 0.221034, 0.361935], abs=1e-5)
    assert not refined.requires_grad
    second = CODER.decode(refined, torch.tensor([[[1.0, 1, 0, 1]]]))
    assert centre_form(second) == pytest.approx([0.542103, 0.496193, 0.221034, 0.442068], abs=1e-5)


@pytest.mark.parametrize(("cls_loss", "logits"), [(CrossEntropyLoss(), [[2.0, 0.0]]), (BCELoss(), [[2.0]])])
def test_objectness_is_the_foregrounds_probability(cls_loss: torch.nn.Module, logits: list) -> None:
    first = Prediction(torch.tensor([logits], requires_grad=True), torch.zeros(1, 1, 4))
    found = arm(cls_loss).objectness(first)
    assert found.item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert not found.requires_grad
