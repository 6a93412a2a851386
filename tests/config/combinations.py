"""The grid of choices that a user may combine with one key each, and pairwise covering arrays of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

YOLO = ("yolo", "yolov2", "yolov1")
ONE_STAGE, TWO_STAGE = ("rpn", "retinanet", "ssd", "refinedet", *YOLO), ("faster_rcnn",)
ON_PROPOSALS = ("fast_rcnn", "sppnet", "rcnn")
PER_LEVEL = ("ssd", "refinedet", "yolo", "yolov2")  # families whose head may have other numbers of boxes on each level
ONE_MAP = ("none", "spp", "passthrough")
YOLO_ALONE = {"softmax": YOLO, "cell": ("yolo", "yolov2")}  # losses that need objectness, logits of a place in a cell
GRID: dict[str, tuple[str | None, ...]] = {
    "model": (*ONE_STAGE, *TWO_STAGE, *ON_PROPOSALS),
    "model/backbone": (
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "darknet19", "darknet53", "extraction"
    ),
    "model/neck": ("none", "hierarchy", "spp", "fpn", "fpn_p2", "spp_fpn", "ssd_extras", "passthrough", "yolo_fpn"),
    "model/cls_loss": ("cross_entropy", "bce", "focal", "hinge", "squared", "softmax"),
    "model/box_loss": ("smooth_l1", "l1", "iou", "giou", "diou", "ciou", "squared", "cell"),
    "model/anchors": ("rpn9", "rpn_fpn", "retinanet", "ssd", "ssd_formula", "refinedet", "yolo3", None),
    "model/pool": ("roi_align", "roi_pool", "spp", "warp", None),
    "model/obj_loss": ("iou_bce", "squared", None),
}  # fmt: skip
FACTORS = tuple(GRID)
Item = tuple[str, str | None]  # (group, option)
Pair = frozenset[Item]


def fits(one: Item, other: Item) -> bool:
    """Whether two choices may stand in one config.

    Anchors go with families that place boxes, pools with those that read regions; R-CNN crops, to one map. SSD's boxes,
    one scale per level and of unequal number, need several maps and a head for each.
    """
    chosen = dict((one, other))
    model = chosen.get("model")
    if model is not None:
        group, option = other if one[0] == "model" else one
        if group == "model/anchors":
            return (model in ON_PROPOSALS) == (option is None) and (option != "ssd" or model in PER_LEVEL)
        if group == "model/pool":
            return (model in ONE_STAGE) == (option is None) and (model == "rcnn") == (option == "warp")
        if group == "model/obj_loss":
            return (model in YOLO) == (option is not None)
        if group == "model/neck":
            return model not in ("rcnn", "yolov1") or option in ONE_MAP
        return option not in YOLO_ALONE or model in YOLO_ALONE[option]
    return not (chosen.get("model/anchors") == "ssd" and chosen.get("model/neck") in ONE_MAP)


def legal(row: Sequence[str | None]) -> bool:
    """Whether all choices of a row fit each other."""
    return all(fits(*pair) for pair in itertools.combinations(zip(FACTORS, row, strict=True), 2))


def overrides(row: Sequence[str | None]) -> list[str]:
    return [f"{key}={value}" for key, value in zip(GRID, row, strict=True) if value is not None]


def pairs(row: Sequence[str | None]) -> set[Pair]:
    """All pairs of choices in a row."""
    items = [item for item in zip(FACTORS, row, strict=True) if item[1] is not None]
    return {frozenset(pair) for pair in itertools.combinations(items, 2)}


def legal_pairs() -> set[Pair]:
    """Every pair of choices that some legal row holds."""
    found = set()
    for model in GRID["model"]:  # what two choices may be depends on each other and on the family alone
        allowed = [[(f, v) for v in GRID[f] if fits(("model", model), (f, v))] for f in FACTORS[1:]]
        for first, second in itertools.combinations([[("model", model)], *allowed], 2):
            found |= {frozenset(p) for p in itertools.product(first, second) if fits(*p)}
    return {pair for pair in found if all(value is not None for _, value in pair)}


def covering_array(seed: int = 0, tries: int = 30) -> list[tuple[str | None, ...]]:
    """Few legal rows in which every legal pair of choices occurs.

    Each row is the best of some tries (AETG): one pair that is missing, then for each other group the option that fits
    and has most missing pairs.
    """
    dice, missing, chosen = random.Random(seed), legal_pairs(), []
    while missing:
        start = min(missing, key=lambda pair: sorted(map(str, pair)))
        made = list(itertools.islice(_rows(start, missing, dice), tries))
        best = max(made, key=lambda row: len(pairs(row) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def _rows(start: Pair, missing: set[Pair], dice: random.Random) -> Iterator[tuple[str | None, ...]]:
    """Legal rows with a pair, each filled in an order of its own."""
    while True:
        row = dict(start)
        others = [factor for factor in FACTORS if factor not in row]
        dice.shuffle(others)
        others.sort(key=lambda factor: factor != "model")  # the family decides what else there is
        for factor in others:
            items = [(factor, v) for v in GRID[factor] if all(fits((factor, v), item) for item in row.items())]
            if not items:
                break
            dice.shuffle(items)
            row |= [max(items, key=lambda item: sum(frozenset((item, other)) in missing for other in row.items()))]
        else:
            yield tuple(row[factor] for factor in FACTORS)
