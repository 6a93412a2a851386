"""Interface of RoI pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Pool(Protocol):
    """Features of RoIs from maps: an `nn.Module`, built with levels and size."""

    @property
    def bins(self) -> int:
        """Values per channel."""

    @property
    def spatial(self) -> bool:
        """Whether the output is a map [N, C, size, size]; otherwise it is a vector [N, C * bins]."""

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Maps {level: [B, C, h, w]} and RoIs [N, 5] (batch index, x1, y1, x2, y2; canvas px) -> features."""

    def __call__(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """As `forward`; `nn.Module` has it."""
