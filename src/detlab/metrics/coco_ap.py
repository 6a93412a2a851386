"""COCO average precision (cocodataset/cocoapi, cocoeval.py), on flat arrays.

T IoU thresholds, R recall points, K classes, 4 area ranges, M numbers of detections. Values equal pycocotools' to the
last bits; the tests compare them. It is implemented here because pycocotools and faster-coco-eval need a Python object
per box, and creating those takes most of their time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from detlab.metrics.collected import CollectedDetections, Found, Judged, Measure
from detlab.metrics.matching import AREAS, RECALLS, THRESHOLDS, Matched, match, pairs_of, place_in_group
from detlab.tensors.structures import GroundTruth

IOU_50, IOU_75 = 0, 5  # rows of .50 and .75 in THRESHOLDS


class CocoAP(CollectedDetections):
    """AP over IoU .50:.05:.95, at .50 and .75, by size and by class; AR at several numbers of detections.

    Args:
        ground_truth: the split's annotations.
        max_detections: per image and class; AP is taken at the largest.
        partial: see `CollectedDetections`.
    """

    def __init__(
        self, ground_truth: GroundTruth, max_detections: Sequence[int] = (1, 10, 100), *, partial: bool = False
    ) -> None:
        super().__init__(ground_truth, [_up_to(max_detections)], partial=partial)


def coco_measure(data: Judged) -> Measure:
    """The measure of `CocoAP` with the numbers of detections in `data.max_detections`."""
    return _up_to(data.max_detections)


def _up_to(max_detections: Sequence[int]) -> Measure:
    return partial(coco_ap, max_detections=tuple(sorted(max_detections)))


def coco_ap(found: Found, max_detections: Sequence[int] = (1, 10, 100)) -> dict[str, float]:
    """map, map_50, map_75, map_small .., mar_1 .., and ap/<class> by name; undefined values are absent.

    A class without ground truth is absent. With ground truth and no detections every value is 0 (pycocotools fails).
    """
    curves = precision_recall(found, max_detections)
    precision, recall = curves.precision, curves.recall
    values = {"map": mean_defined(precision[..., 0])}
    values["map_50"] = mean_defined(precision[IOU_50, ..., 0])
    values["map_75"] = mean_defined(precision[IOU_75, ..., 0])
    sizes = list(enumerate(AREAS))[1:]
    values |= {f"map{area}": mean_defined(precision[..., i]) for i, area in sizes}
    values |= {f"mar_{most}": mean_defined(recall[:, :, 0, i]) for i, most in enumerate(max_detections)}
    values |= {f"mar{area}": mean_defined(recall[:, :, i, -1]) for i, area in sizes}
    values |= {f"ap/{name}": mean_defined(precision[:, :, k, 0]) for k, name in enumerate(found.truth.class_names)}
    return {name: value for name, value in values.items() if value is not None}


class Curves(NamedTuple):
    """COCO's tables of precision and recall; -1 where a class has no ground truth of that size."""

    precision: np.ndarray  # [T, R, K, 4] at the largest number of detections
    recall: np.ndarray  # [T, K, 4, M]


def precision_recall(found: Found, max_detections: Sequence[int], *, use_classes: bool = True) -> Curves:
    """Precision at every recall point, and recall.

    Args:
        found: detections and ground truth.
        max_detections: ascending.
        use_classes: False ignores classes (K = 1).
    """
    truth, most = found.truth, max_detections[-1]
    classes = len(truth.class_names) if use_classes else 1
    det_label = found.rows[:, 5].astype(np.int64) * use_classes
    truth_label = truth.labels.numpy() * use_classes
    det_group = found.images * classes + det_label
    place = place_in_group(det_group, found.rows[:, 4])
    kept = np.flatnonzero(place < most)
    kept = kept[np.lexsort((place[kept], found.images[kept], -found.rows[kept, 4], det_label[kept]))]
    rows, place, det_label = found.rows[kept], place[kept], det_label[kept]
    boxes, crowd, area = truth.boxes.numpy(), truth.crowd.numpy(), truth.area.numpy()
    truth_group = truth.box_image.numpy() * classes + truth_label
    pairs = pairs_of(det_group[kept], rows[:, :4], truth_group, boxes, crowd, least=THRESHOLDS[0])
    det_area = (rows[:, 2:4] - rows[:, :2]).prod(1)
    bounds = np.searchsorted(det_label, np.arange(classes + 1))
    precision = np.full((len(THRESHOLDS), len(RECALLS), classes, len(AREAS)), -1.0)
    recall = np.full((len(THRESHOLDS), classes, len(AREAS), len(max_detections)), -1.0)
    for a, (low, high) in enumerate(AREAS.values()):
        ignored = crowd | (area < low) | (area > high)
        matched = match(pairs, place, ignored, crowd, THRESHOLDS)
        outside = (det_area < low) | (det_area > high)
        counts = np.bincount(truth_label[~ignored], minlength=classes)
        for k in np.flatnonzero(counts):
            part = slice(bounds[k], bounds[k + 1])
            hit, dropped = _verdicts(matched, outside, part)
            precision[:, :, k, a] = [
                interpolated(*tp_fp, counts[k]) for tp_fp in zip(hit.T, (~hit & ~dropped).T, strict=True)
            ]
            for m, limit in enumerate(max_detections):
                recall[:, k, a, m] = hit[place[part] < limit].sum(0) / counts[k]
    return Curves(precision, recall)


def _verdicts(matched: Matched, outside: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
    """True positives [n, T], and detections that are neither true nor false [n, T]."""
    has, ignored = matched.truth[part] >= 0, matched.ignored[part]
    return has & ~ignored, ignored | (~has & outside[part, None])


def interpolated(hit: np.ndarray, false: np.ndarray, count: int) -> np.ndarray:
    """Precision [R] at RECALLS: the highest at that recall or above, else 0.

    Only true positives raise recall, and precision peaks at a true positive, so the curve has points only there.

    Args:
        hit, false: [n] bool, true and false positives by falling score.
        count: boxes of the class.
    """
    at = np.flatnonzero(hit)
    true = np.arange(1, len(at) + 1, dtype=np.float64)
    exact = true / (false.cumsum()[at] + true + np.spacing(1))
    highest = np.append(np.maximum.accumulate(exact[::-1])[::-1], 0.0)
    return highest[np.searchsorted(true / count, RECALLS, side="left")]


def mean_defined(values: np.ndarray) -> float | None:
    """Mean of the defined values; None where there is none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
