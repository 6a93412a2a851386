"""YOLO's assignment: a box belongs to the cell that holds its centre, and to one anchor there.

Shapes: B images, M padded boxes, A anchors. References [1, A, 8] are anchors, each with the cell of its map position
(px, xyxy each).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE, images_at_once
from detlab.ranges import Fraction
from detlab.tensors.boxes import area, centres, pairwise_overlap, sides
from detlab.tensors.structures import Targets, fixed_shapes

STEPS_PER_PX = 256  # sides are rounded to 1/256 px, since float32 anchors of one shape differ a little by position


class CellMatches(NamedTuple):
    """As `Matches`, and the anchor of each box; a box takes one anchor at most."""

    state: Tensor  # [B, A] int8: POSITIVE, NEGATIVE or IGNORED
    # [B, A] int64: row of the matched box in Targets; meaningful where state is POSITIVE
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used
    overlap: Tensor  # [B, A] float32: IoU of the shapes of the anchor and its matched box; 0 where unmatched
    rows: Tensor  # [B, M] int64: the anchor that each box took (later boxes may have taken it too); -1 for none


class CellMatcher(nn.Module):
    """Matches a box to the anchor of most similar shape in the cells that hold its centre (YOLOv2, YOLOv3).

    There is one such cell on each level. Similarity is the IoU of both shapes centred on one point; of equal anchors
    the first is taken. If two boxes choose the same anchor, the later box of the image keeps it, as in darknet, which
    shuffles the boxes first. Crowds take no anchor, every other box takes one or none; all other anchors are negative.

    Args:
        crowd_overlap: a negative whose area lies in a crowd region by more than this share is ignored; null to treat
            crowds as background (see `IoUMatcher`).
    """

    reads_cells = True
    reads_predictions = False
    positive = negative = 0.5  # only for `detlab anchors`: IoU from which it counts a box as covered

    def __init__(self, *, crowd_overlap: Fraction | None = 0.7) -> None:
        super().__init__()
        self.crowd_overlap = crowd_overlap

    def forward(self, references: Tensor, targets: Targets, predicted: Tensor | None = None) -> CellMatches:
        """Match references [1, A, 8] to the boxes of targets; predicted [B, A, 4] are this step's decoded boxes."""
        batch, boxes = targets.labels.shape
        count = references.shape[1]
        if boxes == 0 or count == 0:
            state = torch.full((batch, count), NEGATIVE, dtype=torch.int8, device=references.device)
            none = torch.full_like(targets.labels, -1)
            return CellMatches(state, torch.zeros_like(state, dtype=torch.int64), torch.zeros_like(state).float(), none)
        per_part = images_at_once(batch, 4 * boxes * count)
        parts = []
        for start in range(0, batch, per_part):  # split only to bound memory
            rows = slice(start, start + per_part)
            own = None if predicted is None else predicted[rows]
            parts.append(self._match(references, Targets(*(t[rows] for t in targets)), own))
        if len(parts) == 1:
            return parts[0]
        return CellMatches(*(torch.cat(field) for field in zip(*parts, strict=True)))

    def _match(self, references: Tensor, targets: Targets, predicted: Tensor | None) -> CellMatches:
        shape_iou = _shape_iou(references, targets.boxes)
        best, row = shape_iou.max(dim=2)  # [B, M]
        takes = targets.real & ~targets.crowd & (best > 0)
        row, takes = self._chosen(row, takes, references, targets, predicted)
        count = references.shape[1]
        owner = _last_box(torch.where(takes, row, count), count)  # [B, A]
        state = torch.where(owner >= 0, POSITIVE, NEGATIVE).to(torch.int8)
        index = owner.clamp(min=0)
        overlap = torch.where(owner >= 0, best.gather(1, index), 0.0)
        state = self._without_crowds(state, references[..., :4], targets)
        return CellMatches(state, index, overlap, torch.where(takes, row, -1))

    def _chosen(
        self, row: Tensor, takes: Tensor, references: Tensor, targets: Targets, predicted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each box's anchor [B, M] and whether it takes one [B, M]; `row` is the anchor of best shape in its cells."""
        return row, takes

    def _without_crowds(self, state: Tensor, anchors: Tensor, targets: Targets) -> Tensor:
        crowd = targets.real & targets.crowd
        if self.crowd_overlap is None or not (fixed_shapes(anchors) or bool(crowd.any())):
            return state
        within = pairwise_overlap(targets.boxes, anchors, targets.crowd).masked_fill(~crowd[..., None], 0.0).amax(1)
        return state.masked_fill((state == NEGATIVE) & (within > self.crowd_overlap), IGNORED)


class ResponsibleMatcher(CellMatcher):
    """Matches a box to the anchor of its cell whose *predicted* box overlaps it best (YOLOv1 section 2).

    If none overlaps, it takes the one at the least squared distance. A cell has one object: if the centres of two boxes
    fall into one cell, the later box of the image keeps it.
    """

    reads_predictions = True

    def _chosen(
        self, row: Tensor, takes: Tensor, references: Tensor, targets: Targets, predicted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        cells = references[..., 4:]
        count = references.shape[1]
        mine = cells[0][row]  # [B, M, 4]
        same = (mine[:, :, None] == cells[:, None]).all(-1)  # [B, M, A]
        cell = same.to(torch.uint8).argmax(2)  # a cell is identified by its first anchor
        owner = _last_box(torch.where(takes, cell, count), count)
        order = torch.arange(row.shape[1], device=row.device)
        takes = takes & (owner.gather(1, cell) == order)
        if predicted is None:
            return cell, takes
        overlap = pairwise_overlap(targets.boxes, predicted).masked_fill(~same, -1.0)
        best, by_overlap = overlap.max(2)
        distance = _distance(predicted, targets.boxes, references[..., :4]).masked_fill(~same, torch.inf)
        return torch.where(best > 0, by_overlap, distance.argmin(2)), takes


def _shape_iou(references: Tensor, boxes: Tensor) -> Tensor:
    """IoU of anchors' and boxes' shapes, [B, M, A]; -1 where the anchor's cell does not hold the box's centre."""
    anchors, cells = references[:, None, :, :4], references[:, None, :, 4:]
    centre = centres(boxes)[:, :, None]
    x, y = centre.unbind(-1)
    left, top, right, bottom = cells.unbind(-1)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    (w, h), (aw, ah) = sides(boxes[:, :, None]), sides(anchors)
    aw, ah = (aw * STEPS_PER_PX).round() / STEPS_PER_PX, (ah * STEPS_PER_PX).round() / STEPS_PER_PX
    inter = torch.minimum(w, aw) * torch.minimum(h, ah)
    return torch.where(inside, inter / (w * h + aw * ah - inter), -1.0)


def _last_box(rows: Tensor, count: int) -> Tensor:
    """The last box that took each anchor, [B, count], -1 for none; rows [B, M]: each box's anchor, `count` for none."""
    order = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    owner = torch.full((rows.shape[0], count + 1), -1, dtype=torch.int64, device=rows.device)
    return owner.scatter_reduce(1, rows, order, "amax")[:, :count]


def _distance(predicted: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
    """Squared distance [B, M, A] of (x, y, w, h) between predicted [B, A, 4] and true boxes [B, M, 4].

    Its unit is the anchor's side: for YOLOv1, whose anchor is the canvas, values are shares of the canvas.
    """
    scale = torch.stack(sides(anchors), dim=-1)[:, None]  # [1, 1, A, 2]
    place = ((centres(predicted)[:, None] - centres(boxes)[:, :, None]) / scale).square().sum(-1)
    extent = (torch.stack(sides(predicted), -1)[:, None] - torch.stack(sides(boxes), -1)[:, :, None]) / scale
    return place + extent.square().sum(-1)


def best_overlap(predicted: Tensor, targets: Targets) -> Tensor:
    """Highest IoU [B, A] of each predicted box [B, A, 4] with a true box of its image; crowds are left out."""
    batch, boxes = targets.labels.shape
    if boxes == 0 or predicted.shape[1] == 0:
        return torch.zeros_like(area(predicted))
    usable = targets.real & ~targets.crowd
    per_part = images_at_once(batch, boxes * predicted.shape[1])
    found = []
    for start in range(0, batch, per_part):
        rows = slice(start, start + per_part)
        overlap = pairwise_overlap(targets.boxes[rows], predicted[rows])
        found.append(overlap.masked_fill(~usable[rows, :, None], 0.0).amax(1))
    return torch.cat(found)
