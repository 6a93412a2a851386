"""Common part of RetinaNet and SSD: one head over the neck's maps, one criterion, one selection of boxes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detlab.detectors.detector import Detector, Features, once
from detlab.model.anchors import AnchorGenerator
from detlab.model.backbones import Backbone
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.detect import Detect
from detlab.model.heads import Head
from detlab.model.losses import BoxLoss, ClassificationLoss
from detlab.model.matchers import Matcher
from detlab.model.necks import Neck
from detlab.model.samplers import Sampler
from detlab.tensors.structures import Batch, Detections, Prediction

STAGE = 0  # number of this stage in the random draws


class OneStage(Detector):
    """Anchors on every level, classified and regressed in one step.

    Args:
        num_classes, backbone, neck: see `Detector`.
        anchors: tiled over the neck's levels.
        head: awaits levels, num_anchors, cls_loss, num_classes.
        criterion: awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss, detect: the parts.
    """

    final: Detect

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: AnchorGenerator,
        head: Callable[..., Head],
        criterion: Callable[..., Criterion],
        matcher: Matcher,
        sampler: Sampler,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: Detect,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        levels = self.neck.levels
        self.anchors = anchors
        self.head = head(
            levels=levels,
            num_anchors=anchors.num_anchors(levels),
            cls_loss=cls_loss,
            num_classes=num_classes,
        )
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)
        self.final = detect
        self.seal()

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box`."""
        prediction = self._prediction(batch, features)
        anchors = self.anchors(self.neck.levels, batch.canvas, batch.images.device)
        assignment = self.criterion.assign(anchors, batch.truth, self.num_classes)
        locations = sum(h * w for h, w in self._sizes(batch))
        return self.criterion(prediction, anchors, assignment, batch.draw_keys, STAGE, locations)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Top scores, decoded and suppressed per class (canvas px)."""
        prediction = self._prediction(batch, features)
        per = self.anchors.num_anchors(self.neck.levels)
        return self.final(
            prediction.logits,
            prediction.deltas,
            self.anchors(self.neck.levels, batch.canvas, batch.images.device),
            self.criterion.coder,
            batch.sizes,
            [h * w * n for (h, w), n in zip(self._sizes(batch), per, strict=True)],
            lambda logits, images: self.criterion.cls_loss.scores(logits),
        )

    def _prediction(self, batch: Batch, features: Features | None) -> Prediction:
        maps = self.features(batch) if features is None else features
        return once(maps, "head", lambda: self.head(maps))

    def _sizes(self, batch: Batch) -> list[tuple[int, int]]:
        return [level.size(batch.canvas) for level in self.neck.levels]
