"""SSD's default boxes (SSD section 2.2): shares of the canvas, one scale per level, some ratios.

Order of rows within a location, as in Caffe: the square, the extra square between this scale and the next, then for
each ratio the wide box and the tall one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from detlab.model.anchors.generator import AnchorGenerator, steps, tile
from detlab.ranges import OneOf, Positive, Range, Size
from detlab.tensors.structures import Level

CLIPS = ("none", "sides", "corners")


Ratio = Annotated[float, Range(1, open_low=True)]  # its inverse is used as well


class DefaultBoxes(AnchorGenerator):
    """Default boxes, w = s * sqrt(ratio) and h = s / sqrt(ratio).

    A scale s is a share of the canvas' shorter side, so the boxes follow the canvas. Levels take the scales and
    ratios in order. With fewer levels (extra blocks that found no room), the last scales stay unused. Where a level in
    the middle is left out, `levels` keeps the boxes of the others unchanged.

    Args:
        levels: names of the levels that scales and ratios belong to, in order, such as [C3, C4, C5, extra2]; None for
            the neck's own levels.
        scales: one per level, and one more for the last level's extra square; None for the paper's formula, evenly
            from s_min to s_max over the levels.
        s_min, s_max: scales of the first and the last level in the formula (equation 4).
        ratios: width / height of the boxes besides the square, each with its inverse: one list for all levels, or
            one list for each.
        extra_square: add a square of scale sqrt(s_k * s_k+1).
        clip: none (Caffe); sides: no side longer than the canvas' (torchvision); corners: cut at the canvas.
    """

    by_level = True  # a scale per level, and numbers of boxes that may differ between levels

    def __init__(
        self,
        *,
        levels: Sequence[str] | None = None,
        scales: Annotated[Sequence[Positive], Size(2)] | None = None,
        s_min: Positive = 0.2,
        s_max: Positive = 0.9,
        ratios: Sequence[Ratio] | Sequence[Sequence[Ratio]] = (2.0, 3.0),
        extra_square: bool = True,
        clip: Annotated[str, OneOf(CLIPS)] = "none",
    ) -> None:
        super().__init__()
        rows = [list(row) if isinstance(row, Sequence) else [row] for row in ratios]
        if (scales is not None and len(scales) < 2) or min(scales or [s_min], default=0) <= 0 or s_min > s_max:
            raise ValueError(
                f"model.anchors needs positive scales, one per level and one more, and s_min <= s_max; got "
                f"scales={scales}, s_min={s_min}, s_max={s_max}."
            )
        if any(not isinstance(ratio, int | float) or ratio <= 1 for row in rows for ratio in row):
            raise ValueError(
                f"model.anchors.ratios takes numbers above 1, each used upside down as well; got {ratios}."
            )
        if clip not in CLIPS:
            raise ValueError(f"model.anchors.clip={clip} is not known; use one of {', '.join(CLIPS)}.")
        self.levels = None if levels is None else list(levels)
        self.scales = None if scales is None else [float(s) for s in scales]
        self.s_min, self.s_max = s_min, s_max
        per_level = any(isinstance(row, Sequence) for row in ratios)
        self.ratios = [] if per_level else [ratio for row in rows for ratio in row]  # the same for every level
        self.ratios_by_level = rows if per_level else None
        self.extra_square, self.clip = extra_square, clip

    def num_anchors(self, levels: Sequence[Level]) -> list[int]:
        """Anchors per location, one number for each level."""
        self.level_scales(len(self.levels or levels))  # refuses levels without a scale before anything is trained
        return [1 + int(self.extra_square) + 2 * len(self._ratios(place)) for place in self._places(levels)]

    def per_level(self, levels: Sequence[Level], canvas: tuple[int, int]) -> list[Tensor]:
        """Default boxes of each level, [h * w * anchors, 4] float32, for a canvas of (height, width)."""
        places, made = self._places(levels), []
        scales = self.level_scales(len(self.levels or levels))
        for level, i in zip(levels, places, strict=True):
            base = self._base(scales[i] * min(canvas), scales[i + 1] * min(canvas), self._ratios(i), canvas)
            size = level.size(canvas)
            down, across = steps(level, canvas)
            boxes = tile(base, size, (down, across), (down / 2, across / 2))
            if self.clip == "corners":
                boxes = torch.minimum(boxes.clamp(min=0), torch.tensor(canvas[::-1] * 2))
            made.append(boxes)
        return made

    def level_scales(self, levels: int) -> list[float]:
        """The scales of the first `levels` levels, and one more.

        Raises:
            ValueError: more levels than scales.
        """
        if self.scales is None:
            step = (self.s_max - self.s_min) / max(1, levels - 1)
            return [self.s_min + step * k for k in range(levels + 1)]
        if levels >= len(self.scales):
            raise ValueError(
                f"model.anchors has scales for {len(self.scales) - 1} levels, but model.neck gives {levels}; use "
                f"model/anchors=ssd512 (seven levels), or model/anchors=ssd_formula (any number)."
            )
        return self.scales[: levels + 1]

    def _places(self, levels: Sequence[Level]) -> list[int]:
        """The index of each level in the scales and ratios."""
        count = len(self.levels or levels)
        if self.ratios_by_level is not None and count > len(self.ratios_by_level):
            raise ValueError(
                f"model.anchors.ratios has {len(self.ratios_by_level)} lists, but model.neck gives {count} levels; "
                f"give one list for each, or one list of numbers for all."
            )
        if self.levels is None:
            return list(range(len(levels)))
        unknown = [level.name for level in levels if level.name not in self.levels]
        if unknown:
            raise ValueError(
                f"model.anchors.levels={self.levels} lacks {', '.join(unknown)}, which model.neck gives; name all "
                f"of its maps, or use model.anchors.levels=null."
            )
        return [self.levels.index(level.name) for level in levels]

    def _ratios(self, place: int) -> Sequence[float]:
        return self.ratios if self.ratios_by_level is None else self.ratios_by_level[place]

    def _base(self, side: float, following: float, ratios: Sequence[float], canvas: tuple[int, int]) -> Tensor:
        """Boxes of one location, centred on (0, 0): [anchors, 4] float64."""
        shapes = [(side, side)]
        if self.extra_square:
            shapes.append((math.sqrt(side * following),) * 2)
        for ratio in ratios:
            long, short = side * math.sqrt(ratio), side / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        wh = torch.tensor(shapes, dtype=torch.float64)
        if self.clip == "sides":
            wh = torch.minimum(wh, torch.tensor(canvas[::-1], dtype=torch.float64))
        return torch.cat([-wh, wh], dim=1) / 2
