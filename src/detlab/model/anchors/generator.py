"""Interface of anchor generators: a number per location, and the boxes of a canvas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detlab.tensors.structures import Level

CACHED_CANVASES = 64  # varied canvases come from aspect-ratio grouping; each entry is [A, 4]


class AnchorGenerator(nn.Module, ABC):
    """Boxes of all levels of a canvas, computed once and cached.

    Attributes:
        twins: whether boxes of one location are equal, so that only their predictions tell them apart.
    """

    twins = False

    def __init__(self) -> None:
        super().__init__()
        self._cache: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    @abstractmethod
    def num_anchors(self, levels: Sequence[Level]) -> list[int]:
        """Anchors per location, one number for each level."""

    @abstractmethod
    def per_level(self, levels: Sequence[Level], canvas: tuple[int, int]) -> list[Tensor]:
        """Anchors of each level, [h * w * anchors, 4] float32, for a canvas of (height, width)."""

    def forward(self, levels: Sequence[Level], canvas: tuple[int, int], device: torch.device) -> Tensor:
        """All anchors of a canvas, [1, A, 4] float32 (px, xyxy); cached per canvas and device."""
        key = (tuple(levels), canvas, device)
        if key not in self._cache:
            self._keep(key, torch.cat(self.per_level(levels, canvas))[None].to(device))
        return self._cache[key]

    def with_cells(self, levels: Sequence[Level], canvas: tuple[int, int], device: torch.device) -> Tensor:
        """All anchors of a canvas, each with the cell of its map position, [1, A, 8] float32 (px, xyxy each)."""
        key = (tuple(levels), canvas, device, "cells")
        if key not in self._cache:
            counts = self.num_anchors(levels)
            rows = [cells(level, canvas).repeat_interleave(n, 0) for level, n in zip(levels, counts, strict=True)]
            both = torch.cat([torch.cat(self.per_level(levels, canvas)), torch.cat(rows)], dim=1)
            self._keep(key, both[None].to(device))
        return self._cache[key]

    def _keep(self, key: tuple[object, ...], boxes: Tensor) -> None:
        self._cache[key] = boxes
        if len(self._cache) > CACHED_CANVASES:
            self._cache.popitem(last=False)


def cells(level: Level, canvas: tuple[int, int]) -> Tensor:
    """The cells that a level's map divides a canvas of (height, width) into, [rows * columns, 4] float32 (px, xyxy).

    Their sides are the stride; after unpadded convs, the canvas divided by the map's size.
    """
    down, across = steps(level, canvas)
    cell = torch.tensor([[0, 0, across, down]], dtype=torch.float64)
    return tile(cell, level.size(canvas), (down, across), (0.0, 0.0))


def steps(level: Level, canvas: tuple[int, int]) -> tuple[float, float]:
    """Px between the cells of a level, (down, across): the stride; after unpadded convs, the canvas over the map.

    SSD300's steps are 8, 16, 32, 64, 100 and 300, as in Caffe; the paper divides by the map's size on every level.
    """
    rows, columns = level.size(canvas)
    return (canvas[0] / rows, canvas[1] / columns) if level.shrink else (level.stride, level.stride)


def tile(base: Tensor, size: tuple[int, int], steps: tuple[float, float], first: tuple[float, float]) -> Tensor:
    """Boxes base [n, 4], centred on (0, 0), at every location of a map: [rows * columns * n, 4] float32.

    Args:
        base: xyxy, float64.
        size: (rows, columns).
        steps: px between locations, (down, across).
        first: centre of the first location, px, (y, x).
    """
    y = torch.arange(size[0], dtype=torch.float64) * steps[0] + first[0]
    x = torch.arange(size[1], dtype=torch.float64) * steps[1] + first[1]
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    shift = torch.stack([xx, yy, xx, yy], dim=-1).reshape(-1, 1, 4)
    return (shift + base).reshape(-1, 4).float()
