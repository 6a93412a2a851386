"""Losses of classification and box regression, each unreduced; see `detlab.criterion` for the reduction."""

from detlab.losses.box import BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss
from detlab.losses.classification import BCELoss, ClassificationLoss, CrossEntropyLoss, FocalLoss, HingeLoss

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
