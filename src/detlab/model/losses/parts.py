"""A classification loss in parts, for GPUs: memory is bounded by one part, not by all anchors and classes.

Autograd stores several tensors of the logits' size in float32: at 16 images of 800 x 1344 px, RetinaNet has 258 million
logits with 80 classes (1 GB each) and 3.9 billion with 1,203 (15 GB each). Here nothing is stored but the logits
themselves, in their own dtype, and the backward pass computes each part's loss again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detlab.model.losses.classification import ClassificationLoss
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.structures import in_graph

LARGEST_PART = 2**26  # logits of one part: 256 MB in float32


def loss_of_anchors(loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each anchor [...] in float32 at least, from logits [..., O] of any float dtype.

    Labels are classes [...], or [..., O] bool for a multi-label loss, which is given them as 0 and 1.

    A loss with parameters of its own is not split, since their gradients would be lost.
    """
    whole = not logits.is_cuda or in_graph() or logits.numel() <= LARGEST_PART
    if whole or any(True for _ in loss.parameters()):
        return _loss(loss, at_least_float32(logits), labels)
    own = labels.flatten(0, -2) if labels.dim() == logits.dim() else labels.flatten()
    return in_parts(loss, logits.flatten(0, -2), own).view(logits.shape[:-1])


def in_parts(loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss [N] of rows [N, O], their labels [N] or [N, O]; values and gradients are those of the whole."""
    return _InParts.apply(loss, logits, labels)


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.loss = loss
        out = at_least_float32(logits.new_empty(0)).new_empty(len(logits))
        for part in _parts(logits):
            out[part] = _loss(loss, at_least_float32(logits[part]), labels[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        logits, labels = ctx.saved_tensors
        total = torch.empty_like(logits)
        with torch.enable_grad(), torch.autocast(logits.device.type, enabled=False):
            for part in _parts(logits):
                own = at_least_float32(logits[part].detach()).requires_grad_()
                value = _loss(ctx.loss, own, labels[part])
                total[part] = torch.autograd.grad(value, own, gradient[part])[0]
        return None, total, None


def _loss(loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, labels.to(logits.dtype) if labels.dtype == torch.bool else labels)


def _parts(logits: Tensor) -> Iterator[slice]:
    count = max(1, LARGEST_PART // max(1, logits.shape[1]))
    for start in range(0, len(logits), count):
        yield slice(start, start + count)
