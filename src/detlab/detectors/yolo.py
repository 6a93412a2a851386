"""YOLO: boxes and objectness of every cell at once (You Only Look Once; YOLO9000; YOLOv3: An Incremental Improvement).

The three versions differ only in their parts: conf/model/yolov1.yaml, yolov2.yaml and yolo.yaml (v3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor, nn

from detlab.detectors.detector import Detector, Features, once
from detlab.model.anchors import AnchorGenerator
from detlab.model.backbones import Backbone
from detlab.model.cell_criterion import CellCriterion
from detlab.model.coders import BoxCoder
from detlab.model.detect import Detect
from detlab.model.losses import BoxLoss, ClassificationLoss, ObjectnessLoss
from detlab.model.necks import Neck
from detlab.ranges import Range
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.structures import Batch, Detections, Prediction


class YOLO(Detector):
    """One head over the neck's maps; objectness of every anchor, classes and boxes of those that hold an object.

    Args:
        num_classes, backbone, neck: see `Detector`.
        anchors: tiled over the neck's levels.
        head: awaits levels, num_anchors, cls_loss, obj_loss, num_classes.
        criterion: awaits matcher, coder, obj_loss, cls_loss, box_loss.
        matcher, coder, obj_loss, cls_loss, box_loss, detect: the parts.
        pad_value: grey value of the canvas outside the image, 0 to 255 (darknet: 127.5); None for the colour that is 0
            after normalisation, the backbone's mean.
    """

    resize = "letterbox"
    gives_cells = True
    scores_objectness = True
    final: Detect

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: AnchorGenerator,
        head: Callable[..., nn.Module],
        criterion: Callable[..., CellCriterion],
        matcher: nn.Module,
        coder: BoxCoder,
        obj_loss: ObjectnessLoss,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: Detect,
        pad_value: Annotated[float, Range(0, 255)] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        if pad_value is not None and not 0 <= pad_value <= 255:
            raise ValueError(f"model.pad_value={pad_value} must be a grey value in 0..255, or null.")
        levels = self.neck.levels
        self.anchors, self.pad_value = anchors, pad_value
        self.head = head(
            levels=levels,
            num_anchors=anchors.num_anchors(levels),
            cls_loss=cls_loss,
            obj_loss=obj_loss,
            num_classes=num_classes,
        )
        self.criterion = criterion(
            matcher=matcher, coder=coder, obj_loss=obj_loss, cls_loss=cls_loss, box_loss=box_loss
        )
        self.final = detect
        self.seal()

    def features(self, batch: Batch) -> Features:
        """The neck's maps, with padding of `pad_value`."""
        return self.neck(self.backbone(self.backbone.normalize(batch.images, batch.sizes, self.pad_value)))

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`loss_obj`, `loss_cls` and `loss_box`."""
        prediction = self._prediction(batch, features)
        references = self._references(batch)
        return self.criterion(prediction, references, batch.truth, self.num_classes, batch.canvas, batch.seen)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Boxes of the best scores (objectness times class), decoded and suppressed per class (canvas px)."""
        prediction = self._prediction(batch, features)
        objectness = self.criterion.obj_loss.scores(at_least_float32(prediction.scored))
        per = self.anchors.num_anchors(self.neck.levels)
        sizes = [level.size(batch.canvas) for level in self.neck.levels]
        return self.final(
            prediction.logits,
            prediction.deltas,
            self._references(batch),
            self.criterion.coder,
            batch.sizes,
            [h * w * n for (h, w), n in zip(sizes, per, strict=True)],
            lambda logits, images: objectness[images, :, None] * self.criterion.cls_loss.scores(logits),
        )

    def _prediction(self, batch: Batch, features: Features | None) -> Prediction:
        maps = self.features(batch) if features is None else features
        return once(maps, "head", lambda: self.head(maps))

    def _references(self, batch: Batch) -> Tensor:
        """Anchors and their cells, [1, A, 8]."""
        return self.anchors.with_cells(self.neck.levels, batch.canvas, batch.images.device)


class YOLOv1(YOLO):
    """The first version; it warps images to one size, which its fully connected layers need."""

    resize = "warp"
