"""AP of resampled splits, and what is certain of a difference.

A resample draws as many images as there are, with replacement; an image drawn w times counts w times. Matching within
an image does not change by that, so it is done once, and only the sums over detections are taken again, with weights.
B resamples, I images, K classes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detlab.metrics.matching import RECALLS, THRESHOLDS
from detlab.report.detections import Judged, Truth

BLOCK = 64  # resamples at once: their tables stay in the cache


def draw_weights(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """[B + 1, I] how often each image counts; the first row is the split itself, once each."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def resampled_ap(judged: Judged, truth: Truth, weights: np.ndarray) -> np.ndarray:
    """AP [B, K] over all thresholds; NaN where a class has no box in a resample."""
    ap = np.full((len(weights), judged.classes), np.nan)
    bounds = np.searchsorted(judged.label, np.arange(judged.classes + 1))
    for k in range(judged.classes):
        boxes = truth.image[judged.wanted & (truth.label == k)]
        part = slice(bounds[k], bounds[k + 1])
        if not len(boxes):
            continue
        for start in range(0, len(weights), BLOCK):
            block = np.ascontiguousarray(weights[start : start + BLOCK], dtype=np.float64)
            total = block[:, boxes].sum(1)
            value = _class_ap(judged, part, block, np.maximum(total, 1))
            ap[start : start + BLOCK, k] = np.where(total > 0, value, np.nan)
    return ap


def _class_ap(judged: Judged, part: slice, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
    """AP [B] of one class: only true positives need a look, for precision is highest right at one."""
    image, hit, dropped = judged.image[part], judged.hit[part], judged.dropped[part]
    seen = weights[:, image].cumsum(1)  # [B, n] detections so far
    summed = np.zeros(len(weights))
    for t in range(len(THRESHOLDS)):
        at = np.flatnonzero(hit[:, t])
        if not len(at):
            continue
        true = weights[:, image[at]].cumsum(1)
        counted = seen[:, at]
        if dropped[:, t].any():
            counted = counted - (weights[:, image] * dropped[:, t]).cumsum(1)[:, at]
        precision = true / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, true / total[:, None], side="right")  # recall points passed so far
        summed += (precision * np.diff(reached, axis=1, prepend=0)).sum(1)
    return summed / (len(RECALLS) * len(THRESHOLDS))


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def words(self) -> str:
        """What may be said of it."""
        if not self.distinguishable:
            return "not distinguishable"
        return "better" if self.value > 0 else "worse"


def contrast(
    tables: Mapping[tuple[int, int], np.ndarray],
    parts: Mapping[int, float],
    seeds: Sequence[int],
    seed: int = 0,
) -> Interval | None:
    """A weighted sum of rows, paired by seed, with images and seeds drawn with replacement.

    The same resampled images serve all runs. With S seeds the mean of S drawn seeds varies by (S - 1) / S of what the
    mean of S new seeds would, so deviations between seeds are stretched by sqrt(S / (S - 1)).

    Args:
        tables: by (row, seed), values [B + 1] of a metric, the first on the split itself.
        parts: weight of each row, such as {2: 1.0, 0: -1.0} for a difference.
        seeds: those that all rows of `parts` have.
        seed: of the draw of seeds.
    """
    if not seeds:
        return None
    per_seed = np.stack([sum(w * tables[row, s] for row, w in parts.items()) for s in seeds])  # [S, B + 1]
    point, draws = float(per_seed[:, 0].mean()), per_seed[:, 1:]
    count = len(seeds)
    if not draws.shape[1]:
        return None
    mean = draws.mean(0)
    if count > 1:
        generator = np.random.default_rng(seed)
        chosen = generator.integers(count, size=(count, draws.shape[1]))
        drawn = np.take_along_axis(draws, chosen, axis=0).mean(0)
        mean = mean + np.sqrt(count / (count - 1)) * (drawn - mean)
    low, high = np.nanpercentile(mean, [2.5, 97.5])
    return Interval(point, float(low), float(high))
