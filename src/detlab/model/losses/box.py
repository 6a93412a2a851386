"""Box losses. Each decides whether the target is encoded (L1 kinds) or the prediction decoded (IoU kinds).

GIoU and the like therefore replace smooth L1 in any stage without a second option. All values are float32; decoded
boxes are in absolute pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

from detlab.model.coders import BoxCoder
from detlab.ranges import NonNegative
from detlab.tensors.boxes import area, ordered

EPSILON = 1e-7  # in both divisions of the IoU losses (generalized-iou's code, torchvision's default)


class BoxLoss(nn.Module, ABC):
    """Interface of box losses.

    Args:
        weight: factor of the loss; it belongs to the loss because kinds differ in scale.

    Attributes:
        needs_logits: whether it reads logits of the centre's position in a cell, as `DirectCoder` has them.
    """

    needs_logits = False

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        """Loss of each row, [...], summed over coordinates.

        Args:
            coder: the stage's coder.
            deltas: predicted offsets [..., 4].
            references: anchors or proposals [..., 4] (px, xyxy; broadcast).
            boxes: matched ground truth [..., 4] (px, xyxy).
        """


class SmoothL1Loss(BoxLoss):
    """Smooth L1 of offsets (Fast R-CNN equation 3): 0.5 d^2 / beta below beta, |d| - 0.5 beta above.

    Args:
        beta: threshold; Caffe's sigma is 1 / sqrt(beta), so sigma 3 is 1/9.
    """

    def __init__(self, *, beta: NonNegative, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        if beta < 0:
            raise ValueError(f"model.box_loss.beta must not be negative; got {beta}.")
        self.beta = beta

    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        wanted = coder.encode(references, boxes)
        loss = F.smooth_l1_loss(coder.offsets(deltas), wanted, beta=self.beta, reduction="none")
        return self.weight * loss.sum(-1)


class L1Loss(BoxLoss):
    """Absolute difference of offsets (torchvision's RetinaNet, detectron2's baselines)."""

    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        wanted = coder.encode(references, boxes)
        return self.weight * F.l1_loss(coder.offsets(deltas), wanted, reduction="none").sum(-1)


class SquaredLoss(BoxLoss):
    """Half the squared difference of offsets (YOLOv1 equation 3); its gradient is the difference, as in darknet."""

    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        wanted = coder.encode(references, boxes)
        return self.weight * 0.5 * (coder.offsets(deltas) - wanted).square().sum(-1)


class CellBoxLoss(BoxLoss):
    """darknet's loss of YOLOv2 and YOLOv3: cross entropy of the centre's position in its cell, squared error of sides.

    The papers give squared errors for both. But darknet leaves the sigmoid's derivative out of the gradient, which is
    then the gradient of binary cross entropy.
    """

    needs_logits = True

    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        wanted = coder.encode(references, boxes)
        shares = wanted[..., :2].clamp(0, 1).expand_as(deltas[..., :2])
        place = F.binary_cross_entropy_with_logits(deltas[..., :2], shares, reduction="none").sum(-1)
        return self.weight * (place + 0.5 * (deltas[..., 2:] - wanted[..., 2:]).square().sum(-1))


class IoULoss(BoxLoss):
    """1 - IoU of the decoded box. Its gradient is zero where the boxes do not touch."""

    def forward(self, coder: BoxCoder, deltas: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        return self.weight * self.of_boxes(coder.decode(references, deltas), boxes)

    def of_boxes(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """Loss [...] of predicted boxes [..., 4], in any order of corners, against true ones [..., 4] (px, xyxy).

        Unweighted.
        """
        return self.of_ordered(ordered(predicted), boxes)

    def of_ordered(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """As `of_boxes`, of predicted boxes with x1 <= x2 and y1 <= y2."""
        low = predicted[..., :2].maximum(boxes[..., :2])
        high = predicted[..., 2:].minimum(boxes[..., 2:])
        w, h = (high - low).clamp(min=0).unbind(-1)
        inter = w * h
        return 1 - inter / (area(predicted) + area(boxes) - inter + EPSILON)


class GIoULoss(IoULoss):
    """1 - GIoU (generalized IoU, algorithm 2)."""

    def of_ordered(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        return generalized_box_iou_loss(predicted, boxes, eps=EPSILON)


class DIoULoss(IoULoss):
    """1 - IoU + the squared distance of centres over the enclosing box's squared diagonal (DIoU)."""

    def of_ordered(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        return distance_box_iou_loss(predicted, boxes, eps=EPSILON)


class CIoULoss(IoULoss):
    """DIoU loss + a term for the difference of aspect ratios (CIoU equation 10).

    Sides are clamped to EPSILON; without it, as in torchvision, a box that shrank to a point gives NaN.
    """

    def of_ordered(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        distance = distance_box_iou_loss(predicted, boxes, eps=EPSILON)
        v = 4 / math.pi**2 * (_shape(predicted) - _shape(boxes)) ** 2
        with torch.no_grad():
            alpha = v / (super().of_ordered(predicted, boxes) + v + EPSILON)
        return distance + alpha * v


def _shape(boxes: Tensor) -> Tensor:
    """arctan(w / h) of boxes [..., 4]."""
    w, h = (boxes[..., 2:] - boxes[..., :2]).clamp(min=EPSILON).unbind(-1)
    return torch.atan2(w, h)
