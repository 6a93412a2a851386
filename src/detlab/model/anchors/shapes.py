"""YOLO's anchors: shapes of any width and height (YOLOv2, YOLOv3), or the whole canvas several times (YOLOv1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from detlab.model.anchors.generator import AnchorGenerator, steps, tile
from detlab.ranges import Count, Positive, Size
from detlab.tensors.structures import Level

Shape = tuple[float, float]


class Shapes(AnchorGenerator):
    """Boxes of given shapes, centred on each cell.

    Args:
        shapes: (width, height) of each, px of the canvas; dealt to the levels by ascending area. If their number is not
            a multiple of the number of levels, the last shape is doubled and appended until it is.
    """

    def __init__(self, *, shapes: Annotated[Sequence[Annotated[Sequence[Positive], Size(2, 2)]], Size(1)]) -> None:
        super().__init__()
        if not shapes or any(len(shape) != 2 or min(shape) <= 0 for shape in shapes):
            raise ValueError(f"model.anchors.shapes needs pairs of positive sides, [[w, h], ...]; got {shapes}.")
        self.shapes: list[Shape] = [(float(w), float(h)) for w, h in shapes]

    def dealt(self, levels: int) -> list[list[Shape]]:
        """Shapes by ascending area, an equal number for each level; of equal areas the first given stays first."""
        rows = sorted(self.shapes, key=lambda shape: shape[0] * shape[1])
        while len(rows) % levels:
            rows.append((2 * rows[-1][0], 2 * rows[-1][1]))
        each = len(rows) // levels
        return [rows[i * each : (i + 1) * each] for i in range(levels)]

    def num_anchors(self, levels: Sequence[Level]) -> list[int]:
        """Anchors per location, one number for each level."""
        return [len(shapes) for shapes in self.dealt(len(levels))]

    def per_level(self, levels: Sequence[Level], canvas: tuple[int, int]) -> list[Tensor]:
        """Anchors of each level, [h * w * anchors, 4] float32, for a canvas of (height, width)."""
        return [_tiled(s, level, canvas) for s, level in zip(self.dealt(len(levels)), levels, strict=True)]


class CanvasBoxes(AnchorGenerator):
    """The whole canvas, centred on each cell, once for each of the boxes that a cell predicts (YOLOv1).

    Args:
        boxes: boxes per cell, the paper's B.
    """

    twins = True

    def __init__(self, *, boxes: Count = 2) -> None:
        super().__init__()
        if boxes < 1:
            raise ValueError(f"model.anchors.boxes={boxes} must be at least 1, the boxes that a cell predicts.")
        self.boxes = boxes

    def num_anchors(self, levels: Sequence[Level]) -> list[int]:
        """Boxes per cell, the same for each level."""
        return [self.boxes] * len(levels)

    def per_level(self, levels: Sequence[Level], canvas: tuple[int, int]) -> list[Tensor]:
        """Boxes of each level, [h * w * boxes, 4] float32, for a canvas of (height, width)."""
        shape = (float(canvas[1]), float(canvas[0]))
        return [_tiled([shape] * self.boxes, level, canvas) for level in levels]


def _tiled(shapes: Sequence[Shape], level: Level, canvas: tuple[int, int]) -> Tensor:
    wh = torch.tensor(shapes, dtype=torch.float64)
    down, across = step = steps(level, canvas)
    return tile(torch.cat([-wh, wh], dim=1) / 2, level.size(canvas), step, (down / 2, across / 2))
