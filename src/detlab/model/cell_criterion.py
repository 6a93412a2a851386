"""YOLO's loss: objectness of every anchor, class and box of the anchors matched to a box.

It follows darknet's forward_region_layer, forward_yolo_layer and forward_detection_layer: their deltas are the negative
gradients of these losses, summed over the batch.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from detlab.model.cell_matchers import CellMatches, best_overlap
from detlab.model.coders import BoxCoder
from detlab.model.criterion import share_of_processes
from detlab.model.losses import BoxLoss, ClassificationLoss, ObjectnessLoss, loss_of_anchors
from detlab.model.matchers import NEGATIVE, POSITIVE, Matches
from detlab.ranges import Natural, NonNegative, OneOf
from detlab.tensors.boxes import area, at_least_float32, paired_overlap
from detlab.tensors.structures import Prediction, Targets

NORMALIZERS = ("images", "positives")


class CellAssignment(NamedTuple):
    """Training targets of each anchor, without gradient."""

    positive: Tensor  # [B, A] bool: matched to a box
    negative: Tensor  # [B, A] bool: trained as no object; an anchor that is neither has no loss
    boxes: Tensor  # [B, A, 4]: the matched box; the anchor itself where there is none
    labels: Tensor  # [B, A] int64, K for background; or [B, A, K] bool, for multi-label losses
    objectness: Tensor  # [B, A] in 0..1: 1, or the IoU of the predicted box, where positive


class CellCriterion(nn.Module):
    """Computes `loss_obj`, `loss_cls` and `loss_box`.

    Args:
        matcher, coder, obj_loss, cls_loss, box_loss: the parts.
        normalizer: what the sums are divided by. images: the batch's images (darknet). positives: matched anchors of
            the batch, over all processes, at least 1.
        obj_weight, cls_weight, box_weight: factors of the losses.
        by_size: a box that covers share s of the canvas has the weight 2 - s (YOLOv2, YOLOv3).
        prior_images: until so many images have been trained on, every unmatched anchor learns to predict itself
            (darknet's warm start: 12,800 for YOLOv2); 0 for none.
        prior_weight: factor of that loss.
    """

    of_cells = True  # see `Criterion.of_cells`

    def __init__(
        self,
        *,
        matcher: nn.Module,
        coder: BoxCoder,
        obj_loss: ObjectnessLoss,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        normalizer: Annotated[str, OneOf(NORMALIZERS)] = "images",
        obj_weight: NonNegative = 1.0,
        cls_weight: NonNegative = 1.0,
        box_weight: NonNegative = 1.0,
        by_size: bool = True,
        prior_images: Natural = 0,
        prior_weight: NonNegative = 0.01,
    ) -> None:
        super().__init__()
        if normalizer not in NORMALIZERS:
            raise ValueError(
                f"model.criterion.normalizer={normalizer} is not known here; use one of {', '.join(NORMALIZERS)}."
            )
        self.matcher, self.coder = matcher, coder
        self.obj_loss, self.cls_loss, self.box_loss = obj_loss, cls_loss, box_loss
        self.normalizer, self.by_size = normalizer, by_size
        self.obj_weight, self.cls_weight, self.box_weight = obj_weight, cls_weight, box_weight
        self.prior_images, self.prior_weight = prior_images, prior_weight

    def forward(
        self,
        prediction: Prediction,
        references: Tensor,
        targets: Targets,
        num_classes: int,
        canvas: tuple[int, int],
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted scalar losses.

        Args:
            prediction: logits [B, A, O], deltas [B, A, 4], objectness [B, A].
            references: anchors and their cells [1, A, 8] (px, xyxy each).
            targets: the ground truth.
            num_classes: K.
            canvas: (height, width), px.
            seen: images trained on before this batch, a scalar; None outside training.
        """
        with torch.autocast(prediction.logits.device.type, enabled=False):
            deltas = at_least_float32(prediction.deltas)
            assigned = self.assign(deltas, references, targets, num_classes)
            positive = assigned.positive
            obj = self.obj_loss(at_least_float32(prediction.scored), assigned.objectness)
            weight = self.obj_loss.positive * positive + self.obj_loss.negative * assigned.negative
            cls = loss_of_anchors(self.cls_loss, prediction.logits, assigned.labels)
            box = self._boxes(deltas, references, assigned, canvas, seen)
            sums = (obj * weight).sum(), torch.where(positive, cls, 0).sum(), box.sum()
            by = len(obj) if self.normalizer == "images" else share_of_processes(positive.sum(), obj.dtype)
        weights = self.obj_weight, self.cls_weight, self.box_weight
        names = "loss_obj", "loss_cls", "loss_box"
        return {name: w * total / by for name, w, total in zip(names, weights, sums, strict=True)}

    @torch.no_grad()
    def assign(self, deltas: Tensor, references: Tensor, targets: Targets, num_classes: int) -> CellAssignment:
        """Match anchors to boxes; the matcher and the objectness loss may use the predicted boxes as well.

        Args:
            deltas: [B, A, 4]; references [1, A, 8].
            targets: the ground truth.
            num_classes: K.
        """
        predicted = self.coder.decode(references, deltas)
        matches: Matches | CellMatches
        if getattr(self.matcher, "reads_cells", False):
            matches = self.matcher(references, targets, predicted)
        else:
            matches = self.matcher(references[..., :4], targets)
        positive, negative = matches.state == POSITIVE, matches.state == NEGATIVE
        if self.obj_loss.ignore is not None:
            negative = negative & (best_overlap(predicted, targets) <= self.obj_loss.ignore)
        anchors = references[..., :4].expand(len(positive), -1, -1)
        boxes, labels = anchors, torch.full_like(matches.index, num_classes)
        if targets.labels.shape[1]:
            matched = targets.boxes.gather(1, matches.index[..., None].expand(-1, -1, 4))
            boxes = torch.where(positive[..., None], matched, anchors)
            labels = torch.where(positive, targets.labels.gather(1, matches.index), num_classes)
            if self.cls_loss.multi_label:
                labels = _multi_hot(matches, labels, targets, num_classes)
        wanted = paired_overlap(predicted, boxes) if self.obj_loss.rescore else torch.ones_like(deltas[..., 0])
        return CellAssignment(positive, negative, boxes, labels, torch.where(positive, wanted, 0))

    def _boxes(
        self, deltas: Tensor, references: Tensor, assigned: CellAssignment, canvas: tuple[int, int], seen: Tensor | None
    ) -> Tensor:
        """Box losses [B, A], weighted by size; during the warm start, unmatched anchors have its loss."""
        positive = assigned.positive
        # Rows without a box get zero offsets and their anchor as target: every loss and gradient is finite.
        own = torch.where(positive[..., None], deltas, 0)
        loss = self.box_loss(self.coder, own, references, assigned.boxes)
        if self.by_size:
            loss = loss * (2 - area(assigned.boxes) / (canvas[0] * canvas[1]))
        loss = torch.where(positive, loss, 0)
        if not self.prior_images or seen is None:
            return loss
        prior = self.prior_weight * self.box_loss(self.coder, deltas, references, references[..., :4])
        return torch.where(positive | (seen >= self.prior_images), loss, prior)


def _multi_hot(matches: Matches | CellMatches, labels: Tensor, targets: Targets, num_classes: int) -> Tensor:
    """Classes of each anchor, [B, A, K] bool: the classes of all boxes matched to it."""
    batch, count = labels.shape
    marks = torch.zeros(batch, (count + 1) * num_classes, dtype=torch.bool, device=labels.device)
    if not isinstance(matches, CellMatches):
        rows = torch.arange(count, device=labels.device).expand_as(labels)
        rows, own = torch.where(labels < num_classes, rows, count), labels.clamp(max=num_classes - 1)
    else:
        rows, own = torch.where(matches.rows >= 0, matches.rows, count), targets.labels.clamp(min=0)
    return marks.scatter_(1, rows * num_classes + own, True).view(batch, count + 1, num_classes)[:, :count]
