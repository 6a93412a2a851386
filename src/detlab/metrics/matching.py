"""Pairs of detections and ground truth with their IoU, and COCO's greedy matching, on flat arrays.

COCO's evaluator (cocodataset/cocoapi, cocoeval.py) works image by image and class by class. Here all these groups are
processed at once: first the best detection of every group is matched, then the second, and so on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0.0, 1.0, 101)  # recall points at which precision is read
AREAS = {  # suffix of a metric's name -> range of the annotation's area, px^2, both ends included
    "": (0.0, 1e10),
    "_small": (0.0, 32.0**2),
    "_medium": (32.0**2, 96.0**2),
    "_large": (96.0**2, 1e10),
}
SIDES = (0, 16, 32, 64, 96, 128, 256, 512, np.inf)  # px, bin edges of tables by size: square root of a box's area
MOST_PAIRS = 2_000_000  # computed at once; 1,000 proposals in each of COCO's images make 35 million
NEARLY_ONE = 1 - 1e-10  # COCO matches at an IoU of at least min(threshold, this)


class Pairs(NamedTuple):
    """Detections and ground-truth boxes of the same group (an image, or an image and class)."""

    det: np.ndarray  # [P] row of the detection, ascending
    truth: np.ndarray  # [P] row of the ground-truth box, ascending within a detection
    iou: np.ndarray  # [P] IoU; for a crowd box intersection over the detection's area


def pairs_of(
    det_group: np.ndarray,
    det_boxes: np.ndarray,
    truth_group: np.ndarray,
    truth_boxes: np.ndarray,
    crowd: np.ndarray,
    least: float = 0.0,
) -> Pairs:
    """All pairs within groups whose IoU is at least `least` and above 0.

    Args:
        det_group: [N] number of each detection's group.
        det_boxes: [N, 4] xyxy.
        truth_group: [G].
        truth_boxes: [G, 4] xyxy.
        crowd: [G] bool.
    """
    order = np.argsort(truth_group, kind="stable")
    grouped = truth_group[order]
    first, last = np.searchsorted(grouped, det_group, "left"), np.searchsorted(grouped, det_group, "right")
    counts = last - first
    bounds = np.searchsorted(counts.cumsum(), np.arange(0, counts.sum(), MOST_PAIRS)).tolist()
    parts = []
    for start, end in pairwise([*bounds, len(counts)]):  # split only to bound memory
        own = counts[start:end]
        det = np.repeat(np.arange(start, end), own)
        offset = np.arange(own.sum()) - np.repeat(own.cumsum() - own, own)
        truth = order[np.repeat(first[start:end], own) + offset]
        iou = _overlap(det_boxes, truth_boxes, crowd, det, truth)
        keep = (iou > 0) & (iou >= least)
        parts.append((det[keep], truth[keep], iou[keep]))
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def place_in_group(group: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[N] rank of each detection in its group, 0 for the highest score; of equal scores the earlier row first."""
    order = np.lexsort((-scores, group))
    ordered = group[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(group) else np.zeros(0, np.int64)
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    return place


def _overlap(
    det_boxes: np.ndarray, truth_boxes: np.ndarray, crowd: np.ndarray, det: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """IoU of pairs, with the order of operations of COCO's C code on (x, y, w, h), so values equal its to the bit."""
    det_size, truth_size = det_boxes[:, 2:] - det_boxes[:, :2], truth_boxes[:, 2:] - truth_boxes[:, :2]
    det_area, truth_area = det_size.prod(1)[det], truth_size.prod(1)[truth]
    inter = np.ones(len(det))
    for axis in (0, 1):
        left, right = det_boxes[:, axis], det_boxes[:, axis] + det_size[:, axis]
        truth_left, truth_right = truth_boxes[:, axis], truth_boxes[:, axis] + truth_size[:, axis]
        shared = np.minimum(right[det], truth_right[truth]) - np.maximum(left[det], truth_left[truth])
        inter *= np.maximum(shared, 0)
    union = np.where(crowd[truth], det_area, det_area + truth_area - inter)
    return np.divide(inter, union, out=np.zeros_like(inter), where=(inter > 0) & (union > 0))


class Matched(NamedTuple):
    """Result of COCO's matching for each detection and each of T IoU thresholds."""

    truth: np.ndarray  # [N, T] row of the matched box, -1 where there is none
    ignored: np.ndarray  # [N, T] bool: matched to a box that does not count


def match(pairs: Pairs, order: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> Matched:
    """Greedy matching of all groups.

    Each detection takes the free box of highest IoU, and an ignored box only if no other is free; of equal IoUs the
    later box is taken. A crowd box may be taken many times.

    Args:
        pairs: within groups; pairs below the lowest threshold may be left out.
        order: [N] rank of each detection in its group, see `place_in_group`.
        ignored: [G] bool, boxes that do not count; includes the crowds.
        crowd: [G] bool.
        thresholds: [T].
    """
    size, count = (len(order), len(thresholds)), len(pairs.det)
    found = np.full(size, -1)
    if not count:
        return Matched(found, np.zeros(size, bool))
    sort = np.lexsort((pairs.truth, pairs.iou, ~ignored[pairs.truth], pairs.det, order[pairs.det]))
    det, truth, iou = (field[sort] for field in pairs)
    reach = iou[:, None] >= np.minimum(thresholds, NEARLY_ONE)
    steps = np.flatnonzero(np.diff(order[det], prepend=-1, append=-1))
    taken = np.zeros((len(ignored), len(thresholds)), bool)
    column = np.arange(len(thresholds))[None]
    for start, end in pairwise(steps):
        step_truth = truth[start:end]
        free = reach[start:end] & ~taken[step_truth]
        starts = np.flatnonzero(np.diff(det[start:end], prepend=-1))
        # Candidates are sorted by rising preference, so the last free one is the match.
        last = np.maximum.reduceat(np.where(free, np.arange(end - start)[:, None], -1), starts, axis=0)
        chosen = np.where(last >= 0, step_truth[last], -1)
        found[det[start:end][starts]] = chosen
        use = (last >= 0) & ~crowd[chosen]
        taken[chosen[use], np.broadcast_to(column, use.shape)[use]] = True
    return Matched(found, (found >= 0) & ignored[found])
