"""The region proposal network on its own: class-agnostic, measured by recall (Faster R-CNN section 3; FPN 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from detlab.detectors.detector import Detector, Features, Selection, once
from detlab.model.anchors import AnchorGenerator
from detlab.model.backbones import Backbone
from detlab.model.necks import Neck
from detlab.model.proposals import RPN
from detlab.ranges import OptionsOf
from detlab.tensors.structures import PADDING, Batch, Detections


class RPNDetector(Detector):
    """Proposals as detections of one class.

    Args:
        num_classes: the data set's K; every class counts as "object".
        backbone, neck: see `Detector`.
        anchors: dealt over the neck's levels.
        parts: head, criterion, matcher, sampler, coder, cls_loss, box_loss and detect of `detlab.model.proposals.RPN`.
    """

    class_agnostic = True

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: AnchorGenerator,
        **parts: Annotated[Any, OptionsOf(RPN)],
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        self.rpn = RPN(levels=self.neck.levels, anchors=anchors, **parts)
        self.seal()

    @property
    def selection(self) -> Selection:
        """The step that selects the proposals."""
        return self.rpn.detect

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box`."""
        features = self.features(batch) if features is None else features
        return self.rpn.loss(once(features, "rpn", lambda: self.rpn(features)), batch)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Proposals, label 0, by falling score (canvas px)."""
        features = self.features(batch) if features is None else features
        prediction = once(features, "rpn", lambda: self.rpn(features))
        boxes, scores = self.rpn.propose(prediction, batch, for_training=False)
        labels = torch.where(scores >= 0, 0, PADDING)
        return Detections(boxes, scores.clamp(min=0), labels)
