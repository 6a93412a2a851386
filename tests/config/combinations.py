"""The grid of choices that a user may combine with one key each, and pairwise covering arrays of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

ONE_STAGE, TWO_STAGE = ("rpn", "retinanet", "ssd", "refinedet"), ("faster_rcnn",)
ON_PROPOSALS = ("fast_rcnn", "sppnet", "rcnn")
PER_LEVEL = ("ssd", "refinedet")  # families whose head may have other numbers of boxes on each level
ONE_MAP = ("none", "spp")
GRID: dict[str, tuple[str, ...]] = {
    "model": (*ONE_STAGE, *TWO_STAGE, *ON_PROPOSALS),
    "model/backbone": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16"),
    "model/neck": ("none", "hierarchy", "spp", "fpn", "fpn_p2", "spp_fpn", "ssd_extras"),
    "model/cls_loss": ("cross_entropy", "bce", "focal", "hinge"),
    "model/box_loss": ("smooth_l1", "l1", "iou", "giou", "diou", "ciou"),
    "model/anchors": ("rpn9", "rpn_fpn", "retinanet", "ssd", "ssd_formula", "refinedet"),
    "model/pool": ("roi_align", "roi_pool", "spp", "warp"),
}


def legal(row: Sequence[str | None]) -> bool:
    """Anchors go with families that place boxes, pools with those that read regions; R-CNN crops, to one map.

    SSD's boxes, one scale per level and of unequal number, need several maps and a head for each.
    """
    model, neck, anchors, pool = row[0], row[2], row[-2], row[-1]
    if (model in ON_PROPOSALS) != (anchors is None) or (model in ONE_STAGE) != (pool is None):
        return False
    if anchors == "ssd" and (neck in ONE_MAP or model not in PER_LEVEL):
        return False
    return (model == "rcnn") == (pool == "warp") and (model != "rcnn" or neck in ONE_MAP)


def overrides(row: Sequence[str | None]) -> list[str]:
    return [f"{key}={value}" for key, value in zip(GRID, row, strict=True) if value is not None]


def pairs(row: Sequence[str | None]) -> set[tuple]:
    """All pairs of (factor, value) in a row."""
    items = [(i, v) for i, v in enumerate(row) if v is not None]
    return set(itertools.combinations(items, 2))


def all_rows() -> list[tuple[str | None, ...]]:
    """Every legal combination."""
    optional = ("model/anchors", "model/pool")
    values = [(*values, None) if key in optional else values for key, values in GRID.items()]
    return [row for row in itertools.product(*values) if legal(row)]


def covering_array(seed: int = 0) -> list[tuple[str | None, ...]]:
    """Few legal rows in which every legal pair of choices occurs (greedy: the row with most that is missing)."""
    rows = all_rows()
    random.Random(seed).shuffle(rows)
    numbers: dict[tuple, int] = {}
    masks = [sum(1 << numbers.setdefault(pair, len(numbers)) for pair in pairs(row)) for row in rows]
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        best = max(range(len(rows)), key=lambda i: (masks[i] & missing).bit_count())
        chosen.append(rows[best])
        missing &= ~masks[best]
    return chosen
