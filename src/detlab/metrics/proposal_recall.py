"""Average recall of proposals: IoU .50:.05:.95, class-agnostic, at several numbers per image (COCO's AR)."""

from __future__ import annotations

from collections.abc import Sequence

from detlab.metrics.coco_ap import AREAS, evaluate, mean_defined
from detlab.metrics.collected import CollectedDetections
from detlab.structures import GroundTruth


class ProposalRecall(CollectedDetections):
    """AR@k of class-agnostic boxes; crowd regions are ignored.

    Args:
        ground_truth: the split's annotations.
        max_detections: k, proposals per image; AR by size is taken at the largest.
    """

    def __init__(self, ground_truth: GroundTruth, max_detections: Sequence[int] = (100, 300, 1000)) -> None:
        super().__init__(ground_truth)
        self.max_detections = tuple(sorted(max_detections))

    def compute(self) -> dict[str, float]:
        """ar_<k> for every k, and ar_small, ar_medium, ar_large at the largest; undefined values are absent."""
        self.merged()
        return self.on_rank_zero(self._compute)

    def _compute(self) -> dict[str, float]:
        recall = evaluate(self.ground_truth, *self.merged(), self.max_detections, use_classes=False)["recall"]
        values = {f"ar_{k}": mean_defined(recall[:, 0, 0, i]) for i, k in enumerate(self.max_detections)}
        for i, area in list(enumerate(AREAS))[1:]:
            values[f"ar{area}"] = mean_defined(recall[:, 0, i, -1])
        return {name: value for name, value in values.items() if value is not None}
