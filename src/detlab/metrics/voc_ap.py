"""Pascal VOC average precision (VOC devkit, VOCevaldet.m), at 11 points (2007) or as area (2010 and later).

The devkit has inclusive pixel corners, w = xmax - xmin + 1. Boxes here have continuous corners, (xmin - 1, ymin - 1,
xmax, ymax), so that w = x2 - x1 is the same number, and every IoU is the same. An IoU of exactly 0.5 is a hit, as in
the devkit's code (ovmax >= minoverlap); its text says "exceed", and py-faster-rcnn's Python version uses >.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from detlab.errors import ConfigError
from detlab.metrics.collected import CollectedDetections, Found, Judged, Measure
from detlab.metrics.matching import pairs_of
from detlab.tensors.structures import GroundTruth

KINDS = ("voc07", "voc12")  # 11 points; area under the curve
THRESHOLD = 0.5  # of IoU, from which a detection is a hit


class VocAP(CollectedDetections):
    """AP at an IoU of 0.5 or more. Difficult boxes (and crowds) and the detections matched to them are not counted.

    Args:
        ground_truth: the split's annotations.
        kind: voc07 (11 points) or voc12 (area).
        partial: see `CollectedDetections`.
    """

    def __init__(self, ground_truth: GroundTruth, kind: str = "voc07", *, partial: bool = False) -> None:
        super().__init__(ground_truth, [_of_kind(kind)], partial=partial)


def voc_measure(data: Judged) -> Measure | None:
    """The measure of `VocAP` of the kind that `data.voc_ap` names; None without one.

    Raises:
        ConfigError: an unknown kind.
    """
    return None if data.voc_ap is None else _of_kind(data.voc_ap)


def _of_kind(kind: str) -> Measure:
    if kind not in KINDS:
        raise ConfigError(f"data.voc_ap={kind} is not known; use null, {' or '.join(KINDS)}.")
    return partial(voc_ap, kind=kind)


def voc_ap(found: Found, kind: str = "voc07") -> dict[str, float]:
    """map_<kind> and ap_<kind>/<class>; a class without boxes that count is absent."""
    truth = found.truth
    classes, label = len(truth.class_names), truth.labels.numpy()
    difficult = (truth.difficult | truth.crowd).numpy()
    order = np.lexsort((-found.rows[:, 4], found.rows[:, 5]))  # stable: ties by image id, then emission
    rows = found.rows[order]
    det_label = rows[:, 5].astype(np.int64)
    pairs = pairs_of(
        found.images[order] * classes + det_label,
        rows[:, :4],
        truth.box_image.numpy() * classes + label,
        truth.boxes.numpy(),
        np.zeros(len(label), bool),
    )
    # Each detection is compared with its best box only (the first of equal ones), whether that is taken or not.
    best_first = np.lexsort((pairs.truth, -pairs.iou, pairs.det))
    best = best_first[np.unique(pairs.det[best_first], return_index=True)[1]]
    best = best[pairs.iou[best] >= THRESHOLD]
    det, box = pairs.det[best], pairs.truth[best]
    ignored = np.zeros(len(rows), bool)
    ignored[det[difficult[box]]] = True
    det, box = det[~difficult[box]], box[~difficult[box]]
    hit = np.zeros(len(rows), bool)
    hit[det[np.unique(box, return_index=True)[1]]] = True  # the best-scored detection of each box
    counts = np.bincount(label[~difficult], minlength=classes)
    bounds = np.searchsorted(det_label, np.arange(classes + 1))
    curve = _eleven_points if kind == "voc07" else _area
    values = {}
    for k in np.flatnonzero(counts):
        verdicts = hit[bounds[k] : bounds[k + 1]][~ignored[bounds[k] : bounds[k + 1]]]
        values[f"ap_{kind}/{truth.class_names[k]}"] = curve(verdicts, int(counts[k]))
    total = {f"map_{kind}": float(np.mean(list(values.values())))} if values else {}
    return total | values


def _eleven_points(hit: np.ndarray, count: int) -> float:
    """Mean over recalls 0, .1, .. 1 of the highest precision at that recall or above; hit [n] bool by falling score.

    Recall is compared in whole numbers: in float64 the point 0.1 * 6 lies above a recall of exactly 0.6.
    """
    true = hit.cumsum()
    precision = true / np.arange(1, len(hit) + 1)
    return float(np.mean([precision[10 * true >= point * count].max(initial=0.0) for point in range(11)]))


def _area(hit: np.ndarray, count: int) -> float:
    """Area under the decreasing envelope of precision over recall; hit [n] bool by falling score."""
    at = np.flatnonzero(hit)
    precision = np.arange(1, len(at) + 1) / (at + 1)
    return float(np.maximum.accumulate(precision[::-1]).sum() / count)
