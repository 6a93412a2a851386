"""Common part of Fast R-CNN, SPPnet and R-CNN: RoIs come with the batch, not from the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any

import torch
from torch import Tensor

from detlab.detectors.detector import Features
from detlab.detectors.pyramid import ImagePyramid, view_scale
from detlab.detectors.roi_detector import RoIDetector
from detlab.ranges import Side, Size
from detlab.tensors.structures import Batch, Detections, Prediction, Proposals


class ProposalDetector(RoIDetector):
    """A RoI stage on `Batch.proposals`.

    Args:
        test_scales: px of the shorter side; in testing each RoI is read at the scale where its area is nearest
            224 x 224 (SPPnet section 4.1). null reads the batch as it is. Images are resized from the batch's own
            size, so data.size should be near the largest scale.
        max_test_size: px, largest longer side at those scales.
        box_outputs: false ignores the regression in testing, so that the detections' boxes are the proposals
            (Fast R-CNN table 6, "multi-task training" without test-time regression).
        stage: the arguments of `RoIDetector`.
    """

    box_source = "proposals"

    def __init__(
        self,
        *,
        test_scales: Annotated[Sequence[Side], Size(1, 16)] | None = None,
        max_test_size: Side | None = 2000,
        box_outputs: bool = True,
        **stage: Any,
    ) -> None:
        super().__init__(**stage)
        self.neck.without_anchors()
        self.pyramid = None if test_scales is None else ImagePyramid(test_scales, max_test_size)
        self.box_outputs = box_outputs

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box`."""
        features = self.features(batch) if features is None else features
        return self.roi_loss(given(batch), batch, features)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Proposals scored, regressed per class and suppressed (canvas px); `test_scales` ignore `features`."""
        return self.detect_rois(given(batch), batch, None if self.pyramid else features)

    def roi_features(self, batch: Batch, boxes: Tensor, used: Tensor, features: Features | None = None) -> Tensor:
        """As `RoIDetector.roi_features`; without `features`, each RoI is read at its own test scale."""
        if features is not None or self.pyramid is None:
            return super().roi_features(batch, boxes, used, features)
        scale = self.pyramid.nearest(boxes, batch.sizes)
        views = enumerate(self.pyramid.views(batch))
        return reduce(torch.add, (self._read_at(view, batch, boxes, used & (scale == n)) for n, view in views))

    def _read_at(self, view: Batch, batch: Batch, boxes: Tensor, own: Tensor) -> Tensor:
        """Features [B, S, F] of the RoIs that are read from this view (own [B, S] bool); zeros for the others."""
        moved = boxes * view_scale(batch, view.sizes)
        return torch.where(own[..., None], super().roi_features(view, moved, own, self.features(view)), 0)

    def detect_from(self, prediction: Prediction, proposals: Proposals, batch: Batch) -> Detections:
        """As `RoIDetector.detect_from`; without `box_outputs` every box is the proposal itself."""
        if not self.box_outputs:
            prediction = prediction._replace(deltas=torch.zeros_like(prediction.deltas))
        return super().detect_from(prediction, proposals, batch)


def given(batch: Batch) -> Proposals:
    """The proposals of a batch.

    Raises:
        ValueError: it has none.
    """
    if batch.proposals is None:
        raise ValueError(
            "This family reads Batch.proposals, which the batch lacks; use data.proposals=grid or a file of detlab "
            "proposals."
        )
    return batch.proposals
