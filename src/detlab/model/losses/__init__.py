"""Losses of classification and box regression, each unreduced; see `detlab.model.criterion` for the reduction."""

from detlab.model.losses.box import BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss
from detlab.model.losses.classification import BCELoss, ClassificationLoss, CrossEntropyLoss, FocalLoss, HingeLoss

__all__ = [
    "BCELoss",
    "BoxLoss",
    "CIoULoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "FocalLoss",
    "GIoULoss",
    "HingeLoss",
    "IoULoss",
    "L1Loss",
    "SmoothL1Loss",
]
