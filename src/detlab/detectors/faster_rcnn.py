"""Faster R-CNN: an RPN and a RoI head on one backbone, trained jointly (Faster R-CNN section 3.2; FPN section 4).

With a single C4 map the RoI head is the backbone's own tail (conv5, or fc6 and fc7 of VGG-16); with a pyramid it is
FPN's head of two fully connected layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from detlab.detectors.detector import Features, SharedFeatures, once
from detlab.detectors.roi_detector import RoIDetector
from detlab.model.anchors import AnchorGenerator
from detlab.model.backbones import Backbone
from detlab.model.necks import Neck
from detlab.model.proposals import RPN
from detlab.tensors.structures import Batch, Detections, Proposals


class FasterRCNN(RoIDetector):
    """A two-stage detector.

    Args:
        num_classes, backbone, neck: see `Detector`.
        anchors: of the RPN.
        proposals: the RPN, awaits levels and anchors.
        stage: head, pool, criterion, matcher, sampler, coder, cls_loss, box_loss and detect of `RoIDetector`.
    """

    box_source = "rpn"

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: AnchorGenerator,
        proposals: Callable[..., RPN],
        **stage: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck, **stage)
        self.rpn = proposals(levels=self.neck.levels, anchors=anchors)
        self.seal()

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`rpn/loss_cls`, `rpn/loss_box`, `loss_cls` and `loss_box`.

        In an evaluation, whose features are shared, RoIs are sampled from the proposals that detection uses.
        """
        features = self.features(batch) if features is None else features
        prediction = once(features, "rpn", lambda: self.rpn(features))
        losses = {f"rpn/{name}": value for name, value in self.rpn.loss(prediction, batch).items()}
        if isinstance(features, SharedFeatures):
            proposals = self.first_stage(batch, features)
        else:
            proposals = self.rpn.propose(prediction, batch, for_training=True)
        return losses | self.roi_loss(proposals, batch, features)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """RoIs scored, decoded per class and suppressed (canvas px)."""
        features = self.features(batch) if features is None else features
        return self.detect_rois(self.first_stage(batch, features), batch, features)

    def first_stage(self, batch: Batch, features: Features) -> Proposals:
        """The RPN's proposals (canvas px)."""
        prediction = once(features, "rpn", lambda: self.rpn(features))
        return once(features, "proposals", lambda: self.rpn.propose(prediction, batch, for_training=False))
