"""RoIAlign as one weighted embedding bag over all levels.

Every output bin is a weighted sum of 4 * samples^2 rows of a table that holds all maps channels-last. Values and
gradients equal torchvision.ops.roi_align's, whose CPU backward is a single-threaded scatter. Each RoI is read from its
own level only; with one operator per level, a GPU reads all RoIs on all levels, or the host waits for their counts.

With bfloat16 maps, the table and the bins are bfloat16 (sums inside are float32). Gradients are summed in float32,
since a cell near many RoIs gets hundreds of terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.tensors.boxes import at_least_float32
from detlab.tensors.structures import fixed_shapes


def roi_align_by_embedding(
    maps: Sequence[Tensor],
    rois: Tensor,
    level: Tensor,
    strides: Sequence[int],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign over a pyramid.

    Args:
        maps: L maps [B, C, h, w].
        rois: [N, 5] (batch index, x1, y1, x2, y2) in canvas px.
        level: [N] int64, the map each RoI is read from.
        strides: L strides of the maps.
        size: side of the output.
        samples: samples per bin side.
        aligned: subtract half a pixel and do not widen RoIs below one pixel.

    Returns:
        [N, C, size, size], channels-last in memory.
    """
    channels = maps[0].shape[1]
    table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in maps])
    ends = list(accumulate(x.shape[0] * x.shape[2] * x.shape[3] for x in maps))
    starts = _numbers([0, *ends[:-1]], torch.int32, rois)
    step = _numbers(strides, rois.dtype, rois)[level]
    h, w = (_numbers([x.shape[side] for x in maps], torch.int32, rois)[level] for side in (2, 3))
    boxes = rois[:, 1:] / step[:, None] - (0.5 if aligned else 0.0)
    row, row_weight = _axis(boxes[:, 1], boxes[:, 3], h, size, samples, aligned)  # [N, size * samples, 2]
    column, column_weight = _axis(boxes[:, 0], boxes[:, 2], w, size, samples, aligned)
    base = starts[level] + rois[:, 0].int() * h * w
    index = (base[:, None, None] + row * w[:, None, None]).view(-1, size, 1, samples, 1, 2, 1)
    index = index + column.view(-1, 1, size, 1, samples, 1, 2)
    weight = row_weight.view(-1, size, 1, samples, 1, 2, 1) * column_weight.view(-1, 1, size, 1, samples, 1, 2)
    rows_per_bin = 4 * samples * samples
    weight = (weight / samples**2).reshape(-1, rows_per_bin)
    pooled = _Bags.apply(table, index.reshape(-1, rows_per_bin), weight)
    return pooled.view(-1, size, size, channels).permute(0, 3, 1, 2)


class _Bags(torch.autograd.Function):
    """Weighted sums [bags, C] of rows of a table [V, C]: rows and weights [bags, n]; gradient to the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """The sums, in the table's dtype."""
        ctx.save_for_backward(rows, weights)
        ctx.table = table.shape[0], table.dtype
        return F.embedding_bag(rows, table, per_sample_weights=weights.to(table.dtype), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Every bag's gradient added to its rows, in float32 at least."""
        rows, weights = ctx.saved_tensors
        count, dtype = ctx.table
        wide = at_least_float32(gradient)
        bags, each = rows.shape
        if fixed_shapes(wide):  # a GPU's own backward pass sorts all rows, and holds as much memory as the table
            total = wide.new_zeros(count, wide.shape[1])
            for row, weight in zip(rows.unbind(1), weights.to(wide.dtype).unbind(1), strict=True):
                total.index_add_(0, row, wide * weight[:, None])
            return total.to(dtype), None, None
        bag_of = torch.arange(bags, dtype=rows.dtype).repeat_interleave(each)
        sizes = torch.full((bags,), each, dtype=rows.dtype)
        total = torch.ops.aten._embedding_bag_dense_backward(
            wide, rows.flatten(), bag_of, sizes, sizes[:0], count, False, 0, weights.to(wide.dtype).flatten()
        )
        return total.to(dtype), None, None


def _numbers(values: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """A small tensor on the device of `like`; on a GPU it is filled there, since a copy makes the host wait."""
    if not fixed_shapes(like):
        return torch.tensor(values, dtype=dtype, device=like.device)
    return torch.stack([like.new_full((), value, dtype=dtype) for value in values])


def _axis(start: Tensor, end: Tensor, length: Tensor, size: int, samples: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """Cells and weights of linear interpolation along one axis, [N, size * samples, 2] each."""
    extent = end - start
    if not aligned:
        extent = extent.clamp(min=1)
    steps = (torch.arange(size * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    position = start[:, None] + steps[None] * (extent / size)[:, None]
    limit = length[:, None].to(position.dtype)
    inside = (position >= -1) & (position <= limit)
    position = position.clamp(min=0)
    low = position.floor().minimum(limit - 1)
    high = (low + 1).minimum(limit - 1)
    fraction = torch.where(low >= limit - 1, 0.0, position - low)
    weight = torch.stack([1 - fraction, fraction], dim=-1) * inside[..., None]
    return torch.stack([low, high], dim=-1).int(), weight
