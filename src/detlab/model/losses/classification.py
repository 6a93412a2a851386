"""Classification losses. Each defines its activation, its number of outputs and the bias that encodes a prior.

Labels are 0..K-1, background is K. With K + 1 outputs background is the last one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.model.losses.focal import Focal
from detlab.ranges import NonNegative, Range

IGNORE = -100  # a label without loss


class ClassificationLoss(nn.Module, ABC):
    """Interface of classification losses.

    Attributes:
        knows_background: whether label K, background, has a loss; if not, the head must score objectness separately.
        multi_label: whether `labels` may also be 0/1 for every class of each anchor, [..., K] in the logits' dtype.
    """

    knows_background = True
    multi_label = False

    @abstractmethod
    def outputs(self, num_classes: int) -> int:
        """Logits per anchor for K classes: K, or K + 1 with background."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities [..., K] of the classes (background left out) from logits [..., O]."""

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each anchor, [...], from logits [..., O] and labels [...] in 0..K."""

    @abstractmethod
    def prior_bias(self, prior: float, num_classes: int) -> Tensor:
        """Bias [O] at which an untrained head gives foreground the probability `prior` (RetinaNet section 4.1)."""


class CrossEntropyLoss(ClassificationLoss):
    """Softmax cross entropy over K + 1 outputs, background last (Fast R-CNN equation 1)."""

    def outputs(self, num_classes: int) -> int:
        return num_classes + 1

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)[..., :-1]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        flat = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        return flat.view(labels.shape)

    def prior_bias(self, prior: float, num_classes: int) -> Tensor:
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log((1 - prior) * num_classes / prior)
        return bias


class SoftmaxLoss(ClassificationLoss):
    """Softmax cross entropy over K outputs, for anchors that hold an object (YOLO9000); background has no loss."""

    knows_background = False

    def outputs(self, num_classes: int) -> int:
        return num_classes

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = labels.masked_fill(labels >= logits.shape[-1], IGNORE)
        flat = F.cross_entropy(logits.flatten(0, -2), own.flatten(), reduction="none", ignore_index=IGNORE)
        return flat.view(labels.shape)

    def prior_bias(self, prior: float, num_classes: int) -> Tensor:
        return torch.zeros(num_classes)


class _SigmoidLoss(ClassificationLoss):
    """K independent outputs; background means that all are low."""

    def outputs(self, num_classes: int) -> int:
        return num_classes

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def prior_bias(self, prior: float, num_classes: int) -> Tensor:
        return torch.full((num_classes,), -math.log((1 - prior) / prior))

    @staticmethod
    def one_hot(logits: Tensor, labels: Tensor) -> Tensor:
        """0/1 targets [..., K] of labels [...], zeros for background; labels [..., K] are returned as they are."""
        if labels.shape == logits.shape and labels.is_floating_point():
            return labels
        targets = torch.zeros_like(logits)
        last = logits.shape[-1] - 1
        foreground = (labels <= last).to(logits.dtype)[..., None]
        return targets.scatter_(-1, labels.clamp(max=last)[..., None], foreground)


class BCELoss(_SigmoidLoss):
    """Binary cross entropy summed over K sigmoids (the RPN's loss in Detectron and torchvision, with K = 1)."""

    multi_label = True

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = self.one_hot(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)


class FocalLoss(_SigmoidLoss):
    """Focal loss, -alpha_t (1 - p_t)^gamma ln p_t, summed over K sigmoids (RetinaNet equation 5).

    Args:
        alpha: weight of positives; negatives weigh 1 - alpha. Below 0 no weighting is done.
        gamma: focusing exponent; 0 gives (weighted) cross entropy.
    """

    def __init__(self, *, alpha: Annotated[float, Range(high=1)] = 0.25, gamma: NonNegative = 2.0) -> None:
        super().__init__()
        if gamma < 0 or alpha > 1:
            raise ValueError(f"model.cls_loss needs gamma >= 0 and alpha <= 1; got gamma={gamma}, alpha={alpha}.")
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        flat = Focal.apply(logits.flatten(0, -2), labels.flatten(), self.alpha, self.gamma)
        return flat.view(labels.shape)


class HingeLoss(_SigmoidLoss):
    """K linear SVMs, one class against the rest: hinge losses of margins, summed (R-CNN section 2.3).

    A score is the sigmoid of the margin: it keeps the order of margins and is 0.5 at the SVM's boundary.
    """

    multi_label = True

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        sign = 2 * self.one_hot(logits, labels) - 1
        return F.relu(1 - sign * logits).sum(-1)


class SquaredClassLoss(_SigmoidLoss):
    """Half the squared error of K linear outputs (YOLOv1 equation 3, where they are class probabilities)."""

    multi_label = True

    def scores(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * (logits - self.one_hot(logits, labels)).square().sum(-1)

    def prior_bias(self, prior: float, num_classes: int) -> Tensor:
        return torch.full((num_classes,), prior)
