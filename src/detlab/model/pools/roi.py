"""RoI pools over one map or a pyramid. RoIs are rows (batch index, x1, y1, x2, y2) in canvas pixels.

N RoIs; each is read from the level of its size (FPN equation 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from detlab.model.pools.deterministic import max_of_bins
from detlab.model.pools.embedding import roi_align_by_embedding
from detlab.ranges import Count, Range, Size
from detlab.tensors.boxes import area
from detlab.tensors.structures import Level, fixed_shapes, in_graph

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # FPN section 4.2: a 224 px RoI is read at stride 2^4
NOWHERE = -1e4  # px; a RoI there lies outside every map
NUDGE = 1e-6  # torchvision's: a RoI of exactly 112 or 224 px belongs to the coarser level


def fpn_level(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Index [N] into `strides` (ascending) of the level each box [N, 4] is read from (FPN equation 1)."""
    low, high = int(math.log2(strides[0])), int(math.log2(strides[-1]))
    k = torch.floor(CANONICAL_LEVEL + torch.log2(area(boxes).sqrt() / CANONICAL_SIDE) + NUDGE)
    wanted = 2.0 ** k.clamp(low, high)
    level = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
    for stride in strides[:-1]:  # not bucketize: copying strides to a GPU makes the host wait
        level = level + (wanted > stride)
    return level


class _LevelPool(nn.Module, ABC):
    """Common part of the pools: holds levels and output size, and reads each RoI from its level."""

    spatial = True

    def __init__(self, *, levels: Sequence[Level], size: int) -> None:
        super().__init__()
        ordered = sorted(levels, key=lambda level: level.stride)
        self.names = [level.name for level in ordered]
        self.strides = [level.stride for level in ordered]
        self.size = size

    @property
    def bins(self) -> int:
        """Values per channel."""
        return self.size * self.size

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Maps {level: [B, C, h, w]} and RoIs [N, 5] -> [N, C, size, size] (or [N, C * bins])."""
        maps = [features[name] for name in self.names]
        if len(maps) == 1:
            return self.read(maps[0], rois, self.strides[0])
        level = fpn_level(rois[:, 1:], self.strides)
        out = self._read_own(maps[0], rois, self.strides[0], level == 0)
        for i, (x, stride) in enumerate(zip(maps[1:], self.strides[1:], strict=True), start=1):
            out = out + self._read_own(x, rois, stride, level == i)
        return out

    def _read_own(self, x: Tensor, rois: Tensor, stride: int, own: Tensor) -> Tensor:
        """Pooled RoIs of this level, zeros for the others: [N, ...]."""
        if fixed_shapes(x):  # the others are read outside the map, where all pools give zeros
            image, box = rois[:, :1], rois[:, 1:]
            return self.read(x, torch.cat([image, torch.where(own[:, None], box, NOWHERE)], dim=1), stride)
        rows = own.nonzero()[:, 0]  # on a CPU selecting is cheaper than reading all RoIs L times
        part = self.read(x, rois[rows], stride)
        return part.new_zeros(rois.shape[0], *part.shape[1:]).index_copy(0, rows, part)

    @abstractmethod
    def read(self, x: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Pool RoIs [N, 5] from one map [B, C, h, w]."""


class RoIAlign(_LevelPool):
    """Average of bilinear samples, nothing rounded (Mask R-CNN section 3).

    Args:
        levels, size: the maps, and the output's side.
        sampling_ratio: samples per bin side; 0 for ceil(RoI / size), which varies.
        aligned: subtract half a pixel (detectron2's RoIAlignV2); torchvision's detectors do not.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        size: int,
        sampling_ratio: Annotated[int, Range(0, 16)] = 2,
        aligned: bool = False,
    ) -> None:
        super().__init__(levels=levels, size=size)
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Maps {level: [B, C, h, w]} and RoIs [N, 5] -> [N, C, size, size]."""
        maps = [features[name] for name in self.names]
        if in_graph() or self.sampling_ratio == 0:
            return super().forward(features, rois)
        level = fpn_level(rois[:, 1:], self.strides) if len(maps) > 1 else rois.new_zeros(rois.shape[0]).long()
        return roi_align_by_embedding(maps, rois, level, self.strides, self.size, self.sampling_ratio, self.aligned)

    def read(self, x: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Pool RoIs [N, 5] from one map [B, C, h, w]."""
        wide, rois = _wide(x, rois)
        return roi_align(wide, rois, self.size, 1 / stride, self.sampling_ratio, self.aligned).to(x.dtype)


class RoIPool(_LevelPool):
    """Maximum over bins of rounded coordinates (Fast R-CNN section 2.1)."""

    def read(self, x: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Pool RoIs [N, 5] from one map [B, C, h, w]."""
        wide, rois = _wide(x.contiguous(), rois)
        return max_of_bins(wide, rois, self.size, 1 / stride).to(x.dtype)


class SpatialPyramidPool(_LevelPool):
    """Maxima over a pyramid of grids, concatenated into one vector per RoI (SPPnet section 2.2).

    Args:
        levels: the maps.
        size: ignored, since `grids` sets the output; heads pass a size to every pool.
        grids: sides of the grids; (4, 2, 1) gives 21 bins, (6, 3, 2, 1) 50.
    """

    gives = "vectors"  # bins of several grids, which no conv can read

    spatial = False

    def __init__(
        self, *, levels: Sequence[Level], size: int, grids: Annotated[Sequence[Count], Size(1)] = (4, 2, 1)
    ) -> None:
        super().__init__(levels=levels, size=size)
        self.grids = tuple(grids)

    @property
    def bins(self) -> int:
        """Values per channel: the bins of all grids."""
        return sum(g * g for g in self.grids)

    def read(self, x: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Pool RoIs [N, 5] from one map [B, C, h, w] into [N, C * bins], grid by grid."""
        wide, rois = _wide(x.contiguous(), rois)
        return torch.cat([max_of_bins(wide, rois, g, 1 / stride).flatten(1) for g in self.grids], dim=1).to(x.dtype)


def _wide(x: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Map and RoIs in one dtype of at least float32: torchvision's kernels take no bfloat16, which would also move a
    corner at 300 px by up to a pixel."""
    kind = torch.promote_types(x.dtype, torch.float32)
    return x.to(kind), rois.to(kind)
