"""Interface of the heads of one-stage families, the RPN and RefineDet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from detlab.tensors.structures import Prediction


class Head(Protocol):
    """Maps to predictions: an `nn.Module`, built with levels, num_anchors, cls_loss and num_classes."""

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Maps {level: [B, C, h, w]} -> logits [B, A, O], deltas [B, A, 4]; rows by level, row, column, anchor."""

    def __call__(self, features: Mapping[str, Tensor]) -> Prediction:
        """As `forward`; `nn.Module` has it."""
