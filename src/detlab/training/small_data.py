"""Settings of experiment=small_data for a data set, a machine and the time allowed; `detlab check minutes=10`.

All numbers here are rules of thumb of training from random weights; what each does stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detlab.data.records import Record

STEP_PX = 32  # canvas sizes are multiples of the coarsest stride
SMALLEST_PX = 20.0  # side (square root of the area) that the smallest boxes, the 5 % quantile, should keep
SIZES = {False: (192, 416), True: (320, 800)}  # smallest and largest shorter side, on a CPU and on a GPU
LEAST_SIZE = 128  # a short time allows no smaller canvas than this
ASPECT = 1.5  # longest side that keeps its scale, by the shorter one
PASSES = 25  # passes over the training images that a time should allow before the canvas is made smaller
MOST_PASSES = 300
EVALUATIONS, EVALUATED = 6, 0.1  # evaluations of val, and the share of the time that they may take
LEVELS, OCTAVES = 3, 3  # P3-P5, sizes of each
LARGEST_FIRST = 32.0  # px, smallest size on P3 at most: larger ones at its stride of 8 px give a box too many positives
OWN_SIZE, OWN_FIRST, OWN_STEP, OWN_RATIOS = 192, 20.0, 1.36, [0.5, 1.0, 2.0]  # of experiment=small_data
STEPS = (1.26, 1.6)  # smallest and largest ratio of neighbouring anchor sizes
ON_GPU = {"model.backbone.width": 64, "data.batch_size": 16, "data.num_workers": 8}  # beside the experiment's
CACHED = 2e9  # bytes of resized images that all loader processes together may keep
LOADING = 0.95  # share of the time that is left for steps beside checkpoints and logs


class Facts(NamedTuple):
    """What the settings depend on: the training images and their boxes."""

    images: int
    short_side: float  # px, median
    extents: np.ndarray  # [n] square roots of the boxes' areas, as shares of their image's shorter side
    ratios: np.ndarray  # [n] height / width


def facts_of(records: Sequence[Record]) -> Facts:
    """The facts of a training split."""
    sides, shorter = [], []
    for item in records:
        boxes = item.boxes[~item.crowd]
        sides.append(boxes[:, 2:] - boxes[:, :2])
        shorter.append(np.full(len(boxes), min(item.size)))
    both = np.concatenate(sides)
    return Facts(
        images=len(records),
        short_side=float(np.median([min(item.size) for item in records])),
        extents=np.sqrt(both.prod(1)) / np.concatenate(shorter),
        ratios=both[:, 1] / both[:, 0],
    )


def size_for(facts: Facts, gpu: bool) -> int:
    """The shorter side of the canvas, px: the smallest boxes stay visible, images are not enlarged without need."""
    low, high = SIZES[gpu]
    wanted = max(low, SMALLEST_PX / float(np.quantile(facts.extents, 0.05)))
    return int(min(high, _up(wanted), max(low, _up(facts.short_side))))


def size_within(size: int, passes: float) -> int:
    """A size for which the time allows PASSES passes, or the smallest allowed, where `size` allows `passes`."""
    if passes >= PASSES:
        return size
    smaller = size * math.sqrt(passes / PASSES)  # the time of a step grows with the area
    return int(max(min(LEAST_SIZE, size), smaller // STEP_PX * STEP_PX))


def anchor_candidates(facts: Facts, size: int) -> list[dict[str, list[float]]]:
    """Sizes, octaves and ratios of anchors on P3-P5 of a canvas, to be compared by their coverage of the boxes.

    The experiment's own sizes by the size of the canvas, with its ratios and with those of the boxes; and even steps
    from the small boxes to the large.
    """
    count = LEVELS * OCTAVES
    low, high = (float(q) * size for q in np.quantile(facts.extents, [0.02, 0.98]))
    low = min(low, LARGEST_FIRST)
    step = min(STEPS[1], max(STEPS[0], (high / low) ** (1 / (count - 1))))
    first = math.sqrt(low * high) / step ** ((count - 1) / 2)  # the steps lie around the middle of the boxes
    tall = np.quantile(facts.ratios, [0.15, 0.5, 0.85])
    ratios = sorted({round(float(min(4.0, max(0.25, r))), 2) for r in tall})
    own = OWN_FIRST * size / OWN_SIZE
    return [
        _anchors(own, OWN_STEP, OWN_RATIOS),
        _anchors(own, OWN_STEP, ratios),
        _anchors(first, step, ratios),
        _anchors(first, step, OWN_RATIOS),
    ]


def _anchors(first: float, step: float, ratios: list[float]) -> dict[str, list[float]]:
    return {
        "sizes": [round(first * step ** (OCTAVES * level), 1) for level in range(LEVELS)],
        "octaves": [round(step**octave, 3) for octave in range(OCTAVES)],
        "ratios": ratios,
    }


def longest(size: int) -> int:
    """data.max_size, px, for a shorter side."""
    return int(_up(ASPECT * size))


def passes_in(seconds: float, step_s: float, batch: int, images: int) -> float:
    """How many passes over the images the time allows."""
    return LOADING * (1 - EVALUATED) * seconds / step_s * batch / images


def settings(
    facts: Facts, size: int, passes: float, seconds: float, evaluation_s: float, gpu: bool = False
) -> dict[str, Any]:
    """{key: value} for the command line.

    Args:
        size: shorter side of the canvas, px.
        passes: that the time allows at this size.
        seconds: time allowed.
        evaluation_s: seconds of one evaluation of val.
        gpu: whether it trains on one.
    """
    epochs = min(MOST_PASSES, max(10, math.ceil(passes * 3)))  # the time ends training, on a less busy machine, too
    judged = min(EVALUATIONS, EVALUATED * seconds / max(evaluation_s, 1e-9))
    between = max(1, round(min(epochs, passes) / max(1.0, judged)))
    workers = ON_GPU["data.num_workers"] if gpu else 2
    large = facts.images * 3 * ASPECT * size**2 * workers > CACHED
    return {
        "data.size": size,
        "data.max_size": longest(size),
        **({"data.cache": "none"} if large else {}),
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": min(between, epochs),
        "trainer.max_time": as_time(seconds),
    }


def as_time(seconds: float) -> str:
    """Seconds as days:hours:minutes:seconds, as trainer.max_time takes them."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02}:{hours:02}:{minutes:02}:{rest:02}"


def _up(px: float) -> float:
    return math.ceil(px / STEP_PX) * STEP_PX
