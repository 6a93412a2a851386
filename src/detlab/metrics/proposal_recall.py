"""Average recall of proposals: IoU .50:.05:.95, class-agnostic, at several numbers per image (COCO's AR)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from detlab.metrics.coco_ap import mean_defined, precision_recall
from detlab.metrics.collected import CollectedDetections, Found, Judged, Measure
from detlab.metrics.matching import AREAS
from detlab.tensors.structures import GroundTruth


class ProposalRecall(CollectedDetections):
    """AR@k of class-agnostic boxes; crowd regions are ignored.

    Args:
        ground_truth: the split's annotations.
        max_detections: numbers k of proposals per image; AR by size uses the largest.
        partial: see `CollectedDetections`.
    """

    def __init__(
        self, ground_truth: GroundTruth, max_detections: Sequence[int] = (100, 300, 1000), *, partial: bool = False
    ) -> None:
        super().__init__(ground_truth, [_up_to(max_detections)], partial=partial)


def recall_measure(data: Judged, max_detections: Sequence[int] = (100, 300, 1000)) -> Measure:
    """The measure of `ProposalRecall` for these numbers of proposals."""
    return _up_to(max_detections)


def _up_to(max_detections: Sequence[int]) -> Measure:
    return partial(proposal_recall, max_detections=tuple(sorted(max_detections)))


def proposal_recall(found: Found, max_detections: Sequence[int] = (100, 300, 1000)) -> dict[str, float]:
    """ar_<k> for every k, and ar_small, ar_medium, ar_large at the largest; undefined values are absent."""
    recall = precision_recall(found, max_detections, use_classes=False).recall
    values = {f"ar_{k}": mean_defined(recall[:, 0, 0, i]) for i, k in enumerate(max_detections)}
    values |= {f"ar{area}": mean_defined(recall[:, 0, i, -1]) for i, area in enumerate(AREAS) if area}
    return {name: value for name, value in values.items() if value is not None}


def recall_by_iou(found: Found, max_detections: Sequence[int]) -> np.ndarray:
    """Class-agnostic recall [T, M] at each IoU of THRESHOLDS with the best k proposals; 0 without ground truth."""
    recall = precision_recall(found, tuple(sorted(max_detections)), use_classes=False).recall[:, 0, 0]
    return recall.clip(min=0)
