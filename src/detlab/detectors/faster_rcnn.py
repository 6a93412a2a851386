"""Faster R-CNN: an RPN and a RoI head on one backbone, trained jointly (Faster R-CNN section 3.2; FPN section 4).

With a single C4 map the RoI head is the backbone's own tail (conv5, or fc6 and fc7 of VGG-16), with a pyramid the
two-layer head of FPN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detlab.anchors import Anchors
from detlab.backbones import Backbone
from detlab.coders import BoxCoder
from detlab.criterion import Assignment, Criterion
from detlab.detection import Detect
from detlab.detectors.detector import Detector, Features
from detlab.heads import RoIHead
from detlab.losses import BoxLoss, ClassificationLoss
from detlab.matchers import IGNORED, POSITIVE
from detlab.necks import Neck
from detlab.proposals import RPN
from detlab.samplers import draw
from detlab.structures import Batch, Detections, Prediction, Proposals

STAGE = 2  # number of the RoI stage in the random draws
TRUTH_STAGE = 3  # of the ground-truth boxes among its candidates


class SampledRoIs(NamedTuple):
    """RoIs chosen for training, S slots per image, positives first."""

    boxes: Tensor  # [B, S, 4] canvas px
    chosen: Tensor  # [B, S] bool: slots in use
    assignment: Assignment  # [B, S, ...]


class FasterRCNN(Detector):
    """A two-stage detector.

    Args:
        num_classes, backbone, neck: see `Detector`.
        anchors: handed to the RPN.
        proposals: the RPN, awaits levels and anchors.
        head: awaits levels, backbone, pool, cls_loss, num_classes.
        pool: awaits levels and size; the head hands them over.
        criterion: awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss, detect: the parts of the RoI stage.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: Anchors,
        proposals: Callable[..., RPN],
        head: Callable[..., RoIHead],
        pool: Callable[..., nn.Module],
        criterion: Callable[..., Criterion],
        matcher: nn.Module,
        sampler: nn.Module,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: Detect,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        self.rpn = proposals(levels=self.neck.levels, anchors=anchors)
        self.head = head(
            levels=self.neck.roi_levels(),
            backbone=backbone,
            pool=pool,
            cls_loss=cls_loss,
            num_classes=num_classes,
        )
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)
        self.final = detect
        self.seal()

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`rpn/loss_cls`, `rpn/loss_box`, `loss_cls` and `loss_box`."""
        features = self.features(batch) if features is None else features
        prediction = self.rpn(features)
        losses = {f"rpn/{name}": value for name, value in self.rpn.loss(prediction, batch).items()}
        proposals = self.rpn.propose(prediction, batch, for_training=True)
        rois = self.sample(proposals, batch)
        scored = self._score(features, rois.boxes, rois.chosen)
        return losses | self.criterion(scored, rois.boxes, rois.assignment, batch.draw_keys, STAGE, chosen=rois.chosen)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """RoIs scored, decoded per class and suppressed (canvas px)."""
        features = self.features(batch) if features is None else features
        proposals = self.rpn.propose(self.rpn(features), batch, for_training=False)
        return self.detect_rois(proposals, batch, features)

    def detect_rois(self, proposals: Proposals, batch: Batch, features: Features) -> Detections:
        """The second stage alone, on given proposals (canvas px)."""
        prediction = self._score(features, proposals.boxes, proposals.real)
        scores = self.criterion.cls_loss.scores(prediction.logits.float())
        scores = torch.where(proposals.real[..., None], scores, 0)
        return self.final(scores, prediction.deltas, proposals.boxes, self.criterion.coder, batch.sizes)

    @torch.no_grad()
    def sample(self, proposals: Proposals, batch: Batch) -> SampledRoIs:
        """Choose RoIs among proposals and ground-truth boxes (the latter as in py-faster-rcnn)."""
        truth = batch.targets
        boxes = torch.cat([proposals.boxes, truth.boxes], dim=1)
        usable = torch.cat([proposals.real, truth.real & ~truth.crowd], dim=1)
        assignment = self.criterion.assign(boxes, truth, self.num_classes)
        state = torch.where(usable, assignment.state, IGNORED)
        draws = torch.cat(
            [
                draw(batch.draw_keys, STAGE, proposals.boxes.shape[1]),
                draw(batch.draw_keys, TRUTH_STAGE, truth.boxes.shape[1]),
            ],
            dim=1,
        )
        chosen = self.criterion.sampler(state, torch.zeros_like(draws), draws)
        slots = min(self.criterion.sampler.size or boxes.shape[1], boxes.shape[1])
        order = (2 * chosen.int() + (state == POSITIVE).int()).argsort(dim=1, descending=True, stable=True)
        rows = order[:, :slots]
        coordinates = rows[..., None].expand(-1, -1, 4)
        return SampledRoIs(
            boxes.gather(1, coordinates),
            chosen.gather(1, rows),
            Assignment(
                assignment.labels.gather(1, rows),
                assignment.boxes.gather(1, coordinates),
                state.gather(1, rows),
            ),
        )

    def _score(self, features: Features, boxes: Tensor, used: Tensor) -> Prediction:
        """Head outputs for RoIs [B, S, 4]; zeros in the slots not used [B, S].

        Unused slots are left out where they would enter batch statistics, and on a CPU, where work costs more than
        waiting for their number; on a GPU they run along, so that nothing waits.
        """
        batch, slots = used.shape
        index = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None]
        rois = torch.cat([index.expand(-1, slots, 1), boxes], dim=2).flatten(0, 1)
        if boxes.is_cuda and not (self.training and self.head.has_batch_norm):
            scored = self.head(features, rois)
        else:
            rows = used.flatten().nonzero()[:, 0]
            scored = Prediction(*(_spread(v, rows, len(rois)) for v in self.head(features, rois[rows])[:2]))
        return Prediction(scored.logits.unflatten(0, (batch, slots)), scored.deltas.unflatten(0, (batch, slots)))


def _spread(values: Tensor, rows: Tensor, total: int) -> Tensor:
    """Rows of `values` put at `rows` of `total` rows; zeros elsewhere."""
    return values.new_zeros(total, *values.shape[1:]).index_copy(0, rows, values)
