"""The RoI stage of Faster R-CNN, Fast R-CNN, SPPnet and R-CNN: choose RoIs, compute their features, score them.

    boxes [B, S, 4] -- roi_features --> [B, S, F] -- predict_from --> logits [B, S, O], deltas [B, S, K or 1, 4]
                                                  -- detect_from  --> Detections

The three steps are public so that a classifier fitted separately (R-CNN's linear SVMs and ridge regression) can replace
`predict_from`: it reads cached features, and `detect_from` selects the boxes as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detlab.detectors.detector import Detector, Features
from detlab.model.backbones import Backbone
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Assignment, Criterion
from detlab.model.detect import Detect
from detlab.model.heads import RoIHead
from detlab.model.losses import BoxLoss, ClassificationLoss
from detlab.model.matchers import IGNORED, POSITIVE, Matcher
from detlab.model.necks import Neck
from detlab.model.pools import Pool
from detlab.model.samplers import Sampler, draw
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.structures import Batch, Detections, Level, Prediction, Proposals, fixed_shapes

STAGE = 2  # number of the RoI stage in the random draws
TRUTH_STAGE = 3  # number, in the random draws, of the ground-truth boxes among its candidates


class SampledRoIs(NamedTuple):
    """RoIs chosen for training, S slots per image, positives first."""

    boxes: Tensor  # [B, S, 4] canvas px
    chosen: Tensor  # [B, S] bool: slots in use
    assignment: Assignment  # [B, S, ...]


class RoIDetector(Detector):
    """A detector that ends in scored RoIs.

    Args:
        num_classes, backbone, neck: see `Detector`.
        head: awaits levels, backbone, pool, cls_loss, num_classes.
        pool: awaits levels and size, which the head gives it.
        criterion: awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss, detect: the parts of the RoI stage.
        append_truth: add the ground-truth boxes to the RoIs to sample from in training.
    """

    reads: Literal["maps", "rois", "crops"] = "rois"
    final: Detect

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        head: Callable[..., RoIHead],
        pool: Callable[..., Pool],
        criterion: Callable[..., Criterion],
        matcher: Matcher,
        sampler: Sampler,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: Detect,
        append_truth: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        self.head = head(
            levels=self.pooled_levels(),
            backbone=backbone,
            pool=pool,
            cls_loss=cls_loss,
            num_classes=num_classes,
        )
        if not isinstance(self.head, RoIHead):
            raise ValueError(
                f"model.head gives a {type(self.head).__name__}, but a family that reads RoIs needs a RoIHead; "
                f"subclass detlab.model.heads.RoIHead, or use model/head=roi."
            )
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)
        self.final = detect
        self.append_truth = append_truth

    def pooled_levels(self) -> tuple[Level, ...]:
        """The maps that RoIs are read from."""
        return self.neck.roi_levels()

    def roi_loss(self, proposals: Proposals, batch: Batch, features: Features) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box` of RoIs sampled from proposals (canvas px)."""
        rois = self.sample(proposals, batch)
        scored = self.predict_from(self.roi_features(batch, rois.boxes, rois.chosen, features))
        return self.criterion(scored, rois.boxes, rois.assignment, batch.draw_keys, STAGE, chosen=rois.chosen)

    def detect_rois(self, proposals: Proposals, batch: Batch, features: Features | None) -> Detections:
        """Detections of the RoI stage on given proposals (canvas px)."""
        described = self.roi_features(batch, proposals.boxes, proposals.real, features)
        return self.detect_from(self.predict_from(described), proposals, batch)

    def roi_features(self, batch: Batch, boxes: Tensor, used: Tensor, features: Features | None = None) -> Tensor:
        """Features of each RoI, the input of the head's last layers: conv5 averaged, or the last fully connected layer.

        Unused slots are left out where they would enter batch statistics, and on a CPU, where computing them costs more
        than counting the others. On a GPU they are computed as well, since the host would have to wait for the count.

        Args:
            batch: the images.
            boxes: [B, S, 4] RoIs, canvas px.
            used: [B, S] bool; the other rows give no meaningful features (zeros on a CPU).
            features: the maps to read; None computes them as in testing.

        Returns:
            [B, S, F] with F = `head.width`. Every parameter gets a gradient, even if no slot is used.
        """
        features = self.features(batch) if features is None else features
        count, slots = used.shape
        index = torch.arange(count, device=boxes.device, dtype=boxes.dtype)[:, None, None]
        rois = torch.cat([index.expand(-1, slots, 1), boxes], dim=2).flatten(0, 1)
        if fixed_shapes(boxes) and not (self.training and self.has_batch_norm) and rois.shape[0]:
            return self.describe(features, rois).unflatten(0, (count, slots))
        rows = used.flatten().nonzero()[:, 0]
        if not len(rows):
            return self._zeros(boxes)
        return _spread(self.describe(features, rois[rows]), rows, rois.shape[0]).unflatten(0, (count, slots))

    def predict_from(self, described: Tensor) -> Prediction:
        """Scores and boxes from `roi_features` [B, S, F]: logits [B, S, O], deltas [B, S, K or 1, 4]."""
        return self.head.predict(described)

    def detect_from(self, prediction: Prediction, proposals: Proposals, batch: Batch) -> Detections:
        """Detections (canvas px) of scored proposals [B, R]: decoded per class and suppressed; padding scores 0."""
        scores = self.criterion.cls_loss.scores(at_least_float32(prediction.logits))
        scores = torch.where(proposals.real[..., None], scores, 0)
        return self.final(scores, prediction.deltas, proposals.boxes, self.criterion.coder, batch.sizes)

    def describe(self, features: Features, rois: Tensor) -> Tensor:
        """Features [N, F] of RoIs [N, 5] (batch index, x1, y1, x2, y2; canvas px)."""
        return self.head.describe(features, rois)

    @property
    def has_batch_norm(self) -> bool:
        """Whether padded RoIs would leak into batch statistics."""
        return self.head.has_batch_norm

    @torch.no_grad()
    def sample(self, proposals: Proposals, batch: Batch) -> SampledRoIs:
        """Choose RoIs among proposals and, with `append_truth`, ground-truth boxes (as in py-faster-rcnn)."""
        truth = batch.truth
        boxes, usable = proposals.boxes, proposals.real
        draws = draw(batch.draw_keys, STAGE, boxes.shape[1])
        if self.append_truth:
            boxes = torch.cat([boxes, truth.boxes], dim=1)
            usable = torch.cat([usable, truth.real & ~truth.crowd], dim=1)
            draws = torch.cat([draws, draw(batch.draw_keys, TRUTH_STAGE, truth.boxes.shape[1])], dim=1)
        assignment = self.criterion.assign(boxes, truth, self.num_classes)
        state = torch.where(usable, assignment.state, IGNORED)
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

    def _zeros(self, boxes: Tensor) -> Tensor:
        """Zeros [B, S, F] that keep every parameter in the graph, since DDP waits for the gradients of all."""
        zero = sum(p.sum() for p in self.parameters() if p.requires_grad) * 0
        return boxes.new_zeros(*boxes.shape[:2], self.head.width) + zero


def _spread(values: Tensor, rows: Tensor, total: int) -> Tensor:
    """A tensor of `total` rows: `values` at the indices `rows`, zeros elsewhere."""
    return values.new_zeros(total, *values.shape[1:]).index_copy(0, rows, values)
