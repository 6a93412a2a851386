"""Losses of objectness (YOLO): whether an anchor holds an object, and how well its box fits.

Targets may be any number from 0 to 1, which the classification losses do not accept.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import sigmoid_focal_loss

from detlab.ranges import Fraction, NonNegative, Range


class ObjectnessLoss(nn.Module, ABC):
    """Interface of objectness losses.

    Args:
        rescore: the target of a matched anchor is the IoU of its predicted and matched box, not 1 (darknet's term).
        positive, negative: weights of matched anchors and of the others.
        ignore: IoU of a predicted box with any box of its image above which an unmatched anchor has no loss; null:
            none is left out.
    """

    def __init__(
        self,
        *,
        rescore: bool = False,
        positive: NonNegative = 1.0,
        negative: NonNegative = 1.0,
        ignore: Fraction | None = None,
    ) -> None:
        super().__init__()
        if min(positive, negative) < 0 or (ignore is not None and not 0 <= ignore <= 1):
            raise ValueError(
                f"model.obj_loss needs weights that are not negative and ignore in 0..1 or null; got "
                f"positive={positive}, negative={negative}, ignore={ignore}."
            )
        self.rescore, self.positive, self.negative, self.ignore = rescore, positive, negative, ignore

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Objectness [...] from outputs [...]."""

    @abstractmethod
    def forward(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Unweighted loss [...] of outputs [...] against wanted objectness [...] in 0..1."""

    @abstractmethod
    def prior_bias(self, prior: float) -> float:
        """The output at which objectness is `prior`."""


class BCEObjectness(ObjectnessLoss):
    """Binary cross entropy of a sigmoid (YOLOv3; YOLOv2 as darknet trains it)."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def forward(self, logits: Tensor, wanted: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")

    def prior_bias(self, prior: float) -> float:
        return -math.log((1 - prior) / prior)


class FocalObjectness(BCEObjectness):
    """Focal loss of a sigmoid (RetinaNet equation 5; the YOLOv3 paper tried it: -2 mAP).

    Args:
        alpha: weight of the loss towards 1; the loss towards 0 has 1 - alpha. Below 0 no weighting is done.
        gamma: focusing exponent.
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Range(high=1)] = 0.25,
        gamma: NonNegative = 2.0,
        rescore: bool = False,
        positive: NonNegative = 1.0,
        negative: NonNegative = 1.0,
        ignore: Fraction | None = None,
    ) -> None:
        super().__init__(rescore=rescore, positive=positive, negative=negative, ignore=ignore)
        if gamma < 0 or alpha > 1:
            raise ValueError(f"model.obj_loss needs gamma >= 0 and alpha <= 1; got gamma={gamma}, alpha={alpha}.")
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, wanted: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, wanted, alpha=self.alpha, gamma=self.gamma)


class SquaredObjectness(ObjectnessLoss):
    """Half the squared error of a linear output (YOLOv1 equation 3)."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, logits: Tensor, wanted: Tensor) -> Tensor:
        return 0.5 * (logits - wanted).square()

    def prior_bias(self, prior: float) -> float:
        return prior
