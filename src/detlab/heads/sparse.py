"""Convolutions whose backward pass goes over the locations that have a gradient.

A sampled loss leaves most of a dense head's outputs without gradient: an RPN learns from 256 anchors of an image, SSD
from its positives and three times as many negatives, a box branch from the positives alone. The backward pass of a
convolution multiplies the zeros all the same: 12 % of all products of a training step of Faster R-CNN R50-FPN at
320 px, 10 % of RetinaNet's and 7 % of SSD300's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, unfold

WIDE = 64  # output channels from which the products outweigh the gathering of their factors
DENSE_FROM = {True: 0.5, False: 0.2}  # by width: share of locations from which the dense pass is the faster one
FEW = 3  # output channels to a location from which all are gathered: the weights are then most of what is moved


class SparseConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of stride 1 that keeps the canvas, with the same values and gradients.

    Where the gradient of the output is zero in all channels of most locations, those are left out of the backward
    pass. Small maps take the same way, with or without zeros: the dense pass moves the gradient of the weights three
    times, from one layout into another. How many locations count is read on the host, so a GPU, which would have to
    wait for it, takes the dense pass, and so do compiled and exported graphs.
    """

    def __init__(self, entry: int, width: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(entry, width, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, O, h, w]."""
        return self.over([x])[0]

    def over(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The conv on every level's map; under autocast the weights are cast once for all."""
        device = maps[0].device.type
        if device != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return [super(SparseConv2d, self).forward(x) for x in maps]
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            maps = [x.to(dtype) for x in maps]
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        return [_SparseConv.apply(x, weight, bias) for x in maps]


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = _rows(gradient)
        places = _windows(len(x), *x.shape[2:], weight.shape[2])  # [L, k * k]
        if FEW * len(rows) > len(weight):
            live = rows.abs().amax(1).nonzero()[:, 0]  # vectorised, unlike any(1)
            if len(live) >= DENSE_FROM[len(weight) >= WIDE] * len(rows):
                return _dense(gradient, x, weight, ctx.needs_input_grad)
            rows, places = rows[live], places[live]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        by_x = _to_input(rows, places, x, weight) if needs_x else None
        by_weight = _to_weight(rows, places, x, weight) if needs_weight else None
        return by_x, by_weight, rows.sum(0) if needs_bias else None


def _dense(
    gradient: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    pad = weight.shape[2] // 2
    sizes = [weight.shape[0]] if needs[2] else None
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, sizes, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, needs
    )


def _rows(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B * h * w, C]; a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@lru_cache(maxsize=64)
def _windows(batch: int, h: int, w: int, kernel: int) -> Tensor:
    """What a kernel reads around every location: [B * h * w, kernel^2], 0 outside the map, i + 1 for row i."""
    rows = torch.arange(1, batch * h * w + 1, dtype=torch.float64).view(batch, 1, h, w)  # exact up to 2^53
    windows = unfold(rows, kernel, padding=kernel // 2)  # [B, kernel^2, h * w]
    return windows.transpose(1, 2).reshape(-1, kernel * kernel).long()


def _to_weight(rows: Tensor, places: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weight, laid out channels-last as the weights are."""
    table = _rows(x)
    patches = table[(places - 1).clamp(min=0)]  # [n, k * k, C]
    patches *= (places > 0)[..., None]
    product = rows.t() @ patches.flatten(1)
    k = weight.shape[2]
    return product.view(len(weight), k, k, -1).permute(0, 3, 1, 2)


def _to_input(rows: Tensor, places: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input, summed in at least float32."""
    b, channels, h, w = x.shape
    product = rows @ weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # [n, k * k * C]
    dtype = torch.promote_types(x.dtype, torch.float32)
    total = product.new_zeros(1 + b * h * w, channels, dtype=dtype)
    total.index_add_(0, places.flatten(), product.view(-1, channels).to(dtype))
    return total[1:].to(x.dtype).view(b, h, w, channels).permute(0, 3, 1, 2)
