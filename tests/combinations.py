"""The grid of choices that a user may combine with one key each, and pairwise covering arrays of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

ONE_STAGE, TWO_STAGE = ("rpn", "retinanet"), ("faster_rcnn",)
GRID: dict[str, tuple[str, ...]] = {
    "model": (*ONE_STAGE, *TWO_STAGE),
    "model/backbone": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16"),
    "model/neck": ("none", "hierarchy", "spp", "fpn", "fpn_p2", "spp_fpn"),
    "model/cls_loss": ("cross_entropy", "bce", "focal"),
    "model/box_loss": ("smooth_l1", "l1", "iou", "giou", "diou", "ciou"),
    "model/anchors": ("rpn9", "rpn_fpn", "retinanet"),
    "model/pool": ("roi_align", "roi_pool", "spp"),
}


def legal(row: Sequence[str | None]) -> bool:
    """A pool goes with a two-stage family, and only there."""
    return (row[0] in TWO_STAGE) == (row[-1] is not None)


def overrides(row: Sequence[str | None]) -> list[str]:
    return [f"{key}={value}" for key, value in zip(GRID, row, strict=True) if value is not None]


def pairs(row: Sequence[str | None]) -> set[tuple]:
    """All pairs of (factor, value) in a row."""
    items = [(i, v) for i, v in enumerate(row) if v is not None]
    return set(itertools.combinations(items, 2))


def all_rows() -> list[tuple[str | None, ...]]:
    """Every legal combination."""
    values = [*list(GRID.values())[:-1], (*GRID["model/pool"], None)]
    return [row for row in itertools.product(*values) if legal(row)]


def covering_array(seed: int = 0) -> list[tuple[str | None, ...]]:
    """Few legal rows in which every legal pair of choices occurs (greedy)."""
    rows = all_rows()
    random.Random(seed).shuffle(rows)
    missing = set().union(*map(pairs, rows))
    chosen = []
    while missing:
        sample = [row for row in rows if pairs(row) & missing][:400]
        best = max(sample, key=lambda row: len(pairs(row) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen
