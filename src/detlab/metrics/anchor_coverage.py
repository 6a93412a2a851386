"""How well a detector's anchors cover a data set's boxes, before anything is trained.

G boxes, L levels. Boxes are measured on the canvas that the detector sees, after resizing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from detlab.metrics.matching import SIDES
from detlab.model.anchors import AnchorGenerator
from detlab.model.matchers import IGNORED, POSITIVE, Matcher
from detlab.tensors.boxes import pairwise_overlap
from detlab.tensors.structures import GroundTruth, Level, Targets

EDGES = np.linspace(0, 1, 21)  # of the histogram of best IoUs


class AnchorStage(NamedTuple):
    """The anchors of a detector, their levels and their matcher."""

    anchors: AnchorGenerator
    levels: tuple[Level, ...]
    matcher: Matcher


def anchor_stage(detector: nn.Module) -> AnchorStage | None:
    """A detector's anchors, levels and matcher, from the first stage where it has two; None without anchors."""
    stage: Any = getattr(detector, "rpn", detector)  # read by getattr, since families differ
    anchors = getattr(stage, "anchors", None)
    if anchors is None:
        return None
    levels = stage.levels if hasattr(stage, "levels") else stage.neck.levels
    return AnchorStage(anchors, tuple(levels), getattr(stage, "arm", stage).criterion.matcher)


def thresholds_of(matcher: Matcher) -> list[float]:
    """The IoU thresholds of a matcher for negatives and positives, ascending; 0.5 for a matcher without any."""
    own = {getattr(matcher, name, None) for name in ("negative", "positive")}
    return sorted(t for t in own if t is not None) or [0.5]


class Placement(NamedTuple):
    """How images are resized and put on a canvas."""

    target: Callable[[tuple[int, int]], tuple[int, int]]  # (height, width) as stored -> as resized
    divisor: int  # canvas sides are multiples of it
    canvas: tuple[int, int] | None  # fixed (height, width), or None for the image's own

    def canvas_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """The canvas (height, width) of a resized image of this size in a batch of one."""
        if self.canvas is not None:
            return self.canvas
        rows, columns = (-(-side // self.divisor) * self.divisor for side in size)
        return rows, columns


class Coverage(NamedTuple):
    """One row per box of the ground truth; rows of images that were left out hold -1."""

    iou: np.ndarray  # [G] IoU with the best anchor
    level: np.ndarray  # [G] index of that anchor's level
    sides: np.ndarray  # [G, 2] width and height, canvas px
    positives: np.ndarray  # [G] number of positive anchors of the box
    shares: np.ndarray  # [3] shares of all anchors that are positive, negative, ignored

    def of(self, rows: np.ndarray) -> Coverage:
        """The coverage of the boxes at `rows` only."""
        return Coverage(self.iou[rows], self.level[rows], self.sides[rows], self.positives[rows], self.shares)


@torch.no_grad()
def coverage(stage: AnchorStage, truth: GroundTruth, placement: Placement, most_images: int | None = None) -> Coverage:
    """Match the anchors to every image's boxes, as training would without augmentation.

    Args:
        stage: see `anchor_stage`.
        truth: annotations, original px.
        placement: of images on canvases.
        most_images: use only so many images, spread evenly over the split; None for all.
    """
    count = len(truth.labels)
    iou, level, positives = np.full(count, -1.0), np.full(count, -1), np.full(count, -1)
    sides, states = np.full((count, 2), -1.0), np.zeros(3)
    rows_of = _rows_by_image(truth)
    groups: dict[tuple[int, int], list[tuple[list[int], float, float]]] = defaultdict(list)
    for image in _chosen(truth, most_images):
        rows = rows_of.get(int(truth.image_ids[image]), [])
        stored_height, stored_width = truth.sizes[image].tolist()
        height, width = placement.target((stored_height, stored_width))
        canvas = placement.canvas_of((height, width))
        groups[canvas].append((rows, width / stored_width, height / stored_height))
    for canvas, members in groups.items():
        per_level = stage.anchors.per_level(stage.levels, canvas)
        anchors = torch.cat(per_level)[None]
        cells = getattr(stage.matcher, "reads_cells", False)
        references = stage.anchors.with_cells(stage.levels, canvas, anchors.device) if cells else anchors
        bounds = np.cumsum([len(a) for a in per_level])
        for rows, x, y in members:
            if not rows:
                continue
            boxes = (truth.boxes[rows] * torch.tensor([x, y, x, y], dtype=torch.float64)).float()
            targets = _targets(boxes, truth, rows)
            overlap, best = pairwise_overlap(targets.boxes, anchors)[0].max(dim=1)
            matches = stage.matcher(references, targets)
            positive = matches.state[0] == POSITIVE
            iou[rows], sides[rows] = overlap.numpy(), (boxes[:, 2:] - boxes[:, :2]).numpy()
            level[rows] = np.searchsorted(bounds, best.numpy(), side="right")
            positives[rows] = torch.bincount(matches.index[0][positive], minlength=len(rows)).numpy()
            ignored = int((matches.state[0] == IGNORED).sum())
            states += [int(positive.sum()), len(positive) - int(positive.sum()) - ignored, ignored]
    return Coverage(iou, level, sides, positives, states / max(1, states.sum()))


def _chosen(truth: GroundTruth, most: int | None) -> Sequence[int]:
    count = len(truth.image_ids)
    return range(count) if most is None or most >= count else np.linspace(0, count - 1, most).astype(int).tolist()


def _rows_by_image(truth: GroundTruth) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for row, image in enumerate(truth.box_image.tolist()):
        rows[image].append(row)
    return rows


def _targets(boxes: torch.Tensor, truth: GroundTruth, rows: list[int]) -> Targets:
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return Targets(
        boxes[None], truth.labels[rows][None], area[None], truth.crowd[rows][None], truth.difficult[rows][None]
    )


def coverage_report(covered: Coverage, stage: AnchorStage, crowd: np.ndarray) -> dict[str, Any]:
    """Best IoU, recall at the matcher's thresholds and positives per box: in total, by size and by level.

    Args:
        covered: from `coverage`; boxes of images left out do not count.
        stage: the stage that was given to `coverage`.
        crowd: [G] bool; crowds do not count.
    """
    kept = covered.of(~crowd & (covered.iou >= 0))
    thresholds = thresholds_of(stage.matcher)
    extent = np.sqrt(kept.sides.prod(1))
    sizes = [
        {"from": low, "to": None if np.isinf(high) else high, **_row(kept.of(rows), thresholds)}
        for low, high in pairwise(SIDES)
        if (rows := (extent >= low) & (extent < high)).any()
    ]
    levels = [
        {"level": level.name, "stride": level.stride, **_row(kept.of(kept.level == i), thresholds)}
        for i, level in enumerate(stage.levels)
    ]
    return {
        "all": _row(kept, thresholds),
        "thresholds": thresholds,
        "anchors": dict(zip(("positive", "negative", "ignored"), kept.shares.tolist(), strict=True)),
        "best_iou": {"edges": EDGES.round(2).tolist(), "boxes": np.histogram(kept.iou, EDGES)[0].tolist()},
        "by_size": sizes,
        "by_level": levels,  # of the best anchor
    }


def _row(covered: Coverage, thresholds: Sequence[float]) -> dict[str, float]:
    """The numbers of the report for a group of boxes."""
    count = len(covered.iou)
    if not count:
        return {"boxes": 0}
    return {
        "boxes": count,
        "iou": float(covered.iou.mean()),
        "iou_lowest_tenth": float(np.quantile(covered.iou, 0.1)),
        **{f"recall_{t:g}": float((covered.iou >= t).mean()) for t in thresholds},
        "positives": float(covered.positives.mean()),
        "without_positive": float((covered.positives == 0).mean()),
    }
