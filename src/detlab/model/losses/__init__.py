"""Losses of classification and box regression, each unreduced; see `detlab.model.criterion` for the reduction."""

from detlab.model.losses.box import (
    BoxLoss,
    CellBoxLoss,
    CIoULoss,
    DIoULoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    SmoothL1Loss,
    SquaredLoss,
)
from detlab.model.losses.classification import (
    BCELoss,
    ClassificationLoss,
    CrossEntropyLoss,
    FocalLoss,
    HingeLoss,
    SoftmaxLoss,
    SquaredClassLoss,
)
from detlab.model.losses.objectness import BCEObjectness, FocalObjectness, ObjectnessLoss, SquaredObjectness
from detlab.model.losses.parts import loss_of_anchors

__all__ = [
    "BCELoss",
    "BCEObjectness",
    "BoxLoss",
    "CIoULoss",
    "CellBoxLoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "FocalLoss",
    "FocalObjectness",
    "GIoULoss",
    "HingeLoss",
    "IoULoss",
    "L1Loss",
    "ObjectnessLoss",
    "SmoothL1Loss",
    "SoftmaxLoss",
    "SquaredClassLoss",
    "SquaredLoss",
    "SquaredObjectness",
    "loss_of_anchors",
]
