"""Box geometry over padded batches. Boxes are (x1, y1, x2, y2) in continuous pixels, w = x2 - x1.

Intersection and union follow the COCO convention (no +1).
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Cast bfloat16 and float16 to float32; keep float64, so that a run in double precision stays in it."""
    return x if x.dtype == torch.float64 else x.float()


def area(boxes: Tensor) -> Tensor:
    """Area of boxes [..., 4] in px^2, [...]; an inverted box counts 0."""
    w, h = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return w * h


def ordered(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] with x1 <= x2 and y1 <= y2 (step 1 of algorithm 2 in the GIoU paper)."""
    a, b = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(a, b), torch.maximum(a, b)], dim=-1)


@torch.no_grad()
def pairwise_overlap(boxes: Tensor, anchors: Tensor, crowd: Tensor | None = None) -> Tensor:
    """IoU of every box with every anchor; for crowd boxes intersection over the *anchor's* area.

    Args:
        boxes: [B, M, 4].
        anchors: [1 or B, A, 4].
        crowd: [B, M] bool, the rows to measure as COCO measures a crowd region.

    Returns:
        [B, M, A] in [0, 1], without gradient; 0 where either box has no area or is not finite.
    """
    b = boxes[:, :, None].unbind(-1)
    a = [side.contiguous() for side in anchors[:, None].unbind(-1)]  # torch does not vectorise over a stride of 4
    w = torch.minimum(b[2], a[2]).sub_(torch.maximum(b[0], a[0])).clamp_(min=0)
    h = torch.minimum(b[3], a[3]).sub_(torch.maximum(b[1], a[1])).clamp_(min=0)
    inter = w.mul_(h)
    anchor_area = area(anchors)[:, None]
    whole = (area(boxes)[:, :, None] + anchor_area).sub_(inter)
    if crowd is not None:
        whole = torch.where(crowd[:, :, None], anchor_area, whole)
    return inter.div_(whole.clamp_(min=torch.finfo(inter.dtype).tiny)).nan_to_num_(nan=0.0)


@torch.no_grad()
def paired_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [...] of boxes [..., 4] with others [..., 4], row by row, without gradient; 0 where a box has no area."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    w, h = (high - low).clamp(min=0).unbind(-1)
    whole = area(boxes) + area(others) - w * h
    return (w * h / whole.clamp(min=torch.finfo(whole.dtype).tiny)).nan_to_num(nan=0.0)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [B, ..., 4] clipped to their image: x to [0, width], y to [0, height]; sizes [B, 2] is (h, w)."""
    limit = sizes.flip(-1).to(boxes.dtype).repeat(1, 2)
    limit = limit.reshape(limit.shape[0], *(1,) * (boxes.dim() - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limit)


def within(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Which boxes [1 or B, A, 4] lie fully inside their image, [B, A] bool; sizes [B, 2] is (height, width)."""
    limit = sizes.flip(-1).to(boxes.dtype)[:, None]
    return (boxes[..., :2] >= 0).all(-1) & (boxes[..., 2:] <= limit).all(-1)


def centres(boxes: Tensor) -> Tensor:
    """Centres (x, y) [..., 2] of boxes [..., 4], px."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights [...] of boxes [..., 4], px."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
