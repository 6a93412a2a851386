"""AP and AR on bootstrap resamples of a split.

A resample draws as many images as the split has, with replacement; an image drawn w times has weight w. Matching
happens within an image and does not depend on the weights, so it is done once. Only the sums over detections are
computed again with the weights.

B resamples (b in one block), I images, N detections, K classes, T thresholds, m true positives of a class.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import sparse

from detlab.metrics.matching import RECALLS
from detlab.report.detections import Judged, Truth

BLOCK = 512  # resamples per block; the sums run over detections, one row of the block at a time
Steps = Callable[[int], np.ndarray]  # number of boxes n -> [n + 1] share of the recall axis covered by 0..n of them


def draw_weights(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """[B + 1, I] weight of each image in each resample; the first row is the split itself, with weights 1."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def coco_steps(total: int) -> np.ndarray:
    """COCO samples precision at 101 recall points."""
    return np.searchsorted(RECALLS, np.arange(total + 1) / max(total, 1), side="right") / len(RECALLS)


def voc07_steps(total: int) -> np.ndarray:
    """VOC 2007 samples precision at 11 recall points, compared in whole numbers."""
    return (10 * np.arange(total + 1) // max(total, 1) + 1) / 11


def voc12_steps(total: int) -> np.ndarray:
    """VOC 2010 and later takes the area under the curve."""
    return np.arange(total + 1) / max(total, 1)


def resampled_ap(judged: Judged, truth: Truth, weights: np.ndarray, steps: Steps = coco_steps) -> np.ndarray:
    """AP [B, K], mean over thresholds; NaN where a class has no box in a resample. B counts the rows of `weights`."""
    return ap_by_threshold(judged, truth, weights, steps).mean(2)


def ap_by_threshold(judged: Judged, truth: Truth, weights: np.ndarray, steps: Steps = coco_steps) -> np.ndarray:
    """AP [B, K, T]; see `resampled_ap`."""
    ap = np.full((len(weights), judged.classes, judged.hit.shape[1]), np.nan)
    bounds = np.searchsorted(judged.label, np.arange(judged.classes + 1))
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)  # [I, B]
    label = truth.label if judged.classes > 1 else np.zeros_like(truth.label)
    for k in range(judged.classes):
        boxes = np.bincount(truth.image[judged.wanted & (label == k)], minlength=weights.shape[1])
        if not boxes.any():
            continue
        of_class = _Class(judged, slice(bounds[k], bounds[k + 1]))
        total = np.rint(boxes @ columns).astype(np.int64)
        for start in range(0, len(weights), BLOCK):
            part = slice(start, start + BLOCK)
            value = of_class.ap(np.ascontiguousarray(columns[:, part]), total[part], steps)
            ap[part, k] = np.where(total[part, None] > 0, value, np.nan)
    return ap


class _Class:
    """One class of a run.

    The sums are needed at true positives only: between two of them recall is constant and precision falls.
    """

    def __init__(self, judged: Judged, part: slice) -> None:
        hit, self.dropped = judged.hit[part], judged.dropped[part]
        self.image, self.hit = judged.image[part], hit
        self.at = np.flatnonzero(hit.any(1))  # true positives at any threshold
        self.counted = ~self.dropped[:, 0]  # counted at the first threshold; the others differ in few detections

    def ap(self, columns: np.ndarray, total: np.ndarray, steps: Steps) -> np.ndarray:
        """AP [b, T] of resamples with weights [I, b] and numbers of boxes [b]."""
        thresholds = self.hit.shape[1]
        found = np.zeros((columns.shape[1], thresholds))
        if not len(self.at):
            return found
        sizes, which = np.unique(total, return_inverse=True)
        tables = [steps(int(size)) for size in sizes]
        reached = np.concatenate(tables)
        offset = np.cumsum([0, *map(len, tables[:-1])])[which]  # [b]
        seen = self._sums(np.flatnonzero(self.counted), None, self.at, columns)
        for t in range(thresholds):
            at = np.flatnonzero(self.hit[:, t])
            if not len(at):
                continue
            true = columns[self.image[at]]
            _accumulate(np.add, true)
            counted = seen[np.searchsorted(self.at, at)]
            changed = np.flatnonzero(self.dropped[:, t] == self.counted)
            if len(changed):
                counted += self._sums(changed, np.where(self.counted[changed], -1.0, 1.0), at, columns)
            precision = np.divide(true, np.maximum(counted, 1, out=counted), out=counted)
            _accumulate(np.maximum, precision[::-1])
            share = reached.take(true.astype(np.int64) + offset)
            share[1:] -= share[:-1].copy()
            found[:, t] = np.einsum("mb,mb->b", precision, share)
        return found

    def _sums(self, rows: np.ndarray, signs: np.ndarray | None, at: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[m, b] weighted number of the detections `rows` (times their signs) up to each detection in `at`."""
        place = np.searchsorted(at, rows)
        inside = place < len(at)
        data = np.ones(len(rows)) if signs is None else signs
        summed = sparse.csr_matrix(
            (data[inside], (place[inside], self.image[rows[inside]])), shape=(len(at), len(columns))
        )
        out = np.asarray(summed @ columns)
        _accumulate(np.add, out)
        return out


def _accumulate(operation: np.ufunc, table: np.ndarray) -> None:
    """Combine each row with all rows above it, in place; numpy's accumulate along the first axis is far slower."""
    for above, row in pairwise(list(table)):
        operation(above, row, out=row)


def resampled_recall(judged: Judged, truth: Truth, weights: np.ndarray, most: int) -> np.ndarray:
    """Recall [B] of the best `most` detections per image, mean over thresholds and classes; NaN without any box."""
    images, thresholds = weights.shape[1], judged.hit.shape[1]
    label = truth.label if judged.classes > 1 else np.zeros_like(truth.label)
    wanted, kept = judged.wanted, judged.place < most
    cells = (judged.classes, images)
    boxes = sparse.coo_matrix((np.ones(wanted.sum()), (label[wanted], truth.image[wanted])), cells).tocsr()
    hits = judged.hit[kept].sum(1).astype(np.float64)
    found = sparse.coo_matrix((hits, (judged.label[kept], judged.image[kept])), cells).tocsr()
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)
    total, true = np.asarray(boxes @ columns), np.asarray(found @ columns)  # [K, B]
    recall = np.divide(true, thresholds * total, out=np.full_like(true, np.nan), where=total > 0)
    return mean_known(recall, 0)


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis without NaN; NaN where all values are."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
