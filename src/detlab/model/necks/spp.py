"""Spatial pyramid pooling at stride 1: max-pools of a map are concatenated with it (YOLOv3-SPP, after SPPnet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from detlab.model.necks.neck import Neck, pick
from detlab.ranges import OddCount, Size
from detlab.tensors.structures import Level


class SPPBlock(nn.Module):
    """Max-pools of several kernels, concatenated with their input; a 1x1 conv restores the number of channels.

    Args:
        channels: of the map, in and out.
        kernels: odd sides of the pools.
    """

    def __init__(self, channels: int, kernels: Annotated[Sequence[OddCount], Size(1)]) -> None:
        super().__init__()
        if any(k % 2 == 0 for k in kernels):
            raise ValueError(f"model.neck.kernels needs odd sides to keep the map's size; got {list(kernels)}.")
        self.pools = nn.ModuleList(nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernels)
        self.reduce = nn.Conv2d(channels * (len(kernels) + 1), channels, 1)
        nn.init.kaiming_uniform_(self.reduce.weight, a=1)
        if self.reduce.bias is not None:
            nn.init.zeros_(self.reduce.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        return self.reduce(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))


class SPP(Neck):
    """One map through an SPP block.

    Args:
        levels: the backbone's levels.
        level: which map.
        kernels: odd sides of the pools.
    """

    single_map = True

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        level: str = "C4",
        kernels: Annotated[Sequence[OddCount], Size(1)] = (5, 9, 13),
    ) -> None:
        super().__init__()
        self.levels = tuple(pick(levels, [level], "model.neck.level"))
        self.reads = self.for_rois = (level,)
        self.block = SPPBlock(self.levels[0].channels, kernels)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The one map, of the same size and channels."""
        (name,) = self.reads
        return {name: self.block(maps[name])}
