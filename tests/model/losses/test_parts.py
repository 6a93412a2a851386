"""A loss in parts, as on a GPU, has the values and gradients of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detlab.model.losses import (
    BCELoss,
    ClassificationLoss,
    CrossEntropyLoss,
    FocalLoss,
    HingeLoss,
    SquaredClassLoss,
    loss_of_anchors,
    parts,
)
from detlab.model.losses.parts import in_parts

LOSSES = [FocalLoss(), FocalLoss(alpha=-1, gamma=0.5), BCELoss(), CrossEntropyLoss(), HingeLoss(), SquaredClassLoss()]
KINDS = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def given(loss: ClassificationLoss, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of 23 anchors of 4 classes, and labels with background."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(23, loss.outputs(4), generator=g).mul(3).to(dtype)
    return logits.requires_grad_(), torch.randint(0, 5, (23,), generator=g)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_whole(
    loss: ClassificationLoss, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LARGEST_PART", 40)
    logits, labels = given(loss, dtype)
    weights = torch.rand(23, generator=torch.Generator().manual_seed(1))
    found, expected = in_parts(loss, logits, labels), loss_of_anchors(loss, logits, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    (own,) = torch.autograd.grad(found, logits, weights)
    (wanted,) = torch.autograd.grad(expected, logits, weights)
    assert own.dtype == dtype
    torch.testing.assert_close(own, wanted, rtol=1e-6, atol=1e-7)


@KINDS
def test_gradients_are_exact(loss: ClassificationLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGEST_PART", 40)
    logits, labels = given(loss, torch.float64)
    assert torch.autograd.gradcheck(lambda x: in_parts(loss, x, labels), (logits,))


def test_labels_of_several_classes() -> None:
    logits, _ = given(BCELoss(), torch.float32)
    labels = torch.rand(23, 4, generator=torch.Generator().manual_seed(2)) < 0.3
    expected = BCELoss()(logits, labels.float())
    assert torch.equal(in_parts(BCELoss(), logits, labels), expected)
    assert torch.equal(loss_of_anchors(BCELoss(), logits, labels), expected)
