"""Pools by maxima whose gradients are deterministic on a GPU, for `deterministic=true`.

The CUDA backward passes of torchvision's roi_pool and of torch's adaptive pools add with atomic operations, in any
order, and torch refuses them then. Values and gradients here are the same; sums of gradients have a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import roi_pool

PART = 2**24  # gradients that are added at a time: sorting them takes 64 bytes each


def needed(x: Tensor) -> bool:
    """Whether x lies on a GPU and only deterministic operations may run."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def max_of_bins(x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """torchvision's roi_pool: map [B, C, h, w] and RoIs [N, 5] (in px; x scale: cells) -> maxima [N, C, size, size]."""
    return _MaxOfBins.apply(x, rois, size, scale) if needed(x) else roi_pool(x, rois, size, scale)


class _MaxOfBins(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # which would turn cells into numbers of the map's type
            found, place = torch.ops.torchvision.roi_pool(x, rois, scale, size, size)
        ctx.save_for_backward(place, rois)  # place [N, C, size, size]: cell of the maximum in its plane; -1 for none
        ctx.shape = x.shape
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        place, rois = ctx.saved_tensors
        batch, channels, h, w = ctx.shape
        total = gradient.new_zeros(batch * channels * h * w + 1)  # the last cell takes what has no place
        plane = torch.arange(channels, device=place.device)[:, None, None] * (h * w)
        rows = max(1, PART // max(1, place[:1].numel()))
        for start in range(0, len(place), rows):
            own = slice(start, start + rows)
            image = rois[own, 0].long()[:, None, None, None] * (channels * h * w)
            cell = torch.where(place[own] >= 0, image + plane + place[own], len(total) - 1)
            total.index_add_(0, cell.flatten(), gradient[own].flatten())
        return total[:-1].view(ctx.shape), None, None, None


def adaptive_max(x: Tensor, size: int) -> Tensor:
    """torch's adaptive_max_pool2d: [N, C, h, w] -> [N, C, size, size]."""
    return _max_of_rows(_max_of_rows(x, size).mT, size).mT if needed(x) else F.adaptive_max_pool2d(x, size)


def _max_of_rows(x: Tensor, size: int) -> Tensor:
    """[N, C, h, w] -> [N, C, size, w]: maxima of rows floor(i h / size) to ceil((i + 1) h / size)."""
    h = x.shape[2]
    starts = [(i * h // size, -(-(i + 1) * h // size)) for i in range(size)]
    return torch.stack([x[:, :, first:end].max(2).values for first, end in starts], dim=2)
