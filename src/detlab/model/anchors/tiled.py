"""Anchors of absolute sizes (Faster R-CNN, section 3.1.1; RetinaNet, section 4).

Sizes are absolute pixels of the canvas and are dealt in ascending order to the levels, so one list serves any
neck: [32..512] gives one size each on P3-P7 or on P2-P6 and all five on a single map.

Order of rows within a location: ratio (major) and size (minor).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from detlab.model.anchors.generator import AnchorGenerator, tile
from detlab.ranges import Fraction, OneOf, Positive, Size
from detlab.tensors.structures import Level

STEPS = ("stride", "divided")


def deal(sizes: Sizes, levels: int) -> list[list[float]]:
    """Sizes in ascending order, an equal number per level.

    If their number is not a multiple of `levels`, the last size is doubled and appended until it is.
    """
    dealt = sorted(float(s) for s in sizes)
    while len(dealt) % levels:
        dealt.append(dealt[-1] * 2)
    each = len(dealt) // levels
    return [dealt[i * each : (i + 1) * each] for i in range(levels)]


Sizes = Annotated[Sequence[Positive], Size(1)]


class Anchors(AnchorGenerator):
    """Anchors of exact size, w = size / sqrt(ratio) and h = size * sqrt(ratio).

    Args:
        sizes: side of the square anchor, px of the canvas.
        octaves: factors each size is multiplied with (RetinaNet: 2^0, 2^(1/3), 2^(2/3)).
        ratios: height / width.
        offset: centre of the first location, as a share of the stride (0: torchvision and detectron2; 0.5: the
            middle of the receptive cell).
        round_corners: round the corners of the base anchors to whole pixels, as torchvision does.
        steps: px from one location to the next. stride: the level's stride, where the map's cells are. divided: the
            canvas' side over the map's, rounded down, which is torchvision's rule and differs where the stride does
            not divide the side: on 800 px P7 has 7 rows and steps of 114 px, not 128.
    """

    def __init__(
        self,
        *,
        sizes: Sizes,
        octaves: Sizes = (1.0,),
        ratios: Sizes = (0.5, 1.0, 2.0),
        offset: Fraction = 0.5,
        round_corners: bool = False,
        steps: Annotated[str, OneOf(STEPS)] = "stride",
    ) -> None:
        super().__init__()
        if steps not in STEPS:
            raise ValueError(f"model.anchors.steps={steps} is not known; use one of {', '.join(STEPS)}.")
        if not sizes or not ratios or not octaves or min(*sizes, *ratios, *octaves, math.inf) <= 0:
            raise ValueError(
                f"model.anchors needs positive sizes, octaves and ratios; got sizes={list(sizes)}, "
                f"octaves={list(octaves)}, ratios={list(ratios)}."
            )
        self.sizes, self.octaves, self.ratios = list(sizes), list(octaves), list(ratios)
        self.offset, self.round_corners, self.steps = offset, round_corners, steps

    def num_anchors(self, levels: Sequence[Level]) -> list[int]:
        """Anchors per location, one number for each level."""
        return [len(s) * len(self.octaves) * len(self.ratios) for s in deal(self.sizes, len(levels))]

    def base(self, sizes: Sizes, stride: int) -> Tensor:
        """Anchors of one location, centred on (0, 0): [ratios * sizes * octaves, 4] float64."""
        scales = torch.tensor([s * o for s in sizes for o in self.octaves], dtype=torch.float64)
        root = torch.tensor(self.ratios, dtype=torch.float64).sqrt()
        w = (scales[None] / root[:, None]).flatten()
        h = (scales[None] * root[:, None]).flatten()
        corners = torch.stack([-w, -h, w, h], dim=1) / 2
        return corners.round() if self.round_corners else corners

    def per_level(self, levels: Sequence[Level], canvas: tuple[int, int]) -> list[Tensor]:
        """Anchors of each level, [h * w * anchors, 4] float32, for a canvas of (height, width)."""
        dealt = deal(self.sizes, len(levels))
        return [self._tile(level, sizes, canvas) for level, sizes in zip(levels, dealt, strict=True)]

    def _tile(self, level: Level, sizes: Sizes, canvas: tuple[int, int]) -> Tensor:
        size, base = level.size(canvas), self.base(sizes, level.stride)
        if self.steps == "divided":
            down, across = (side // cells for side, cells in zip(canvas, size, strict=True))
            return tile(base, size, (down, across), (self.offset * down, self.offset * across))
        first = (self.offset + level.shrink / 2) * level.stride  # unpadded convs shift it inwards
        return tile(base, size, (level.stride, level.stride), (first, first))


class CaffeAnchors(Anchors):
    """Anchors of the Caffe Faster R-CNN: ratios rounded on a stride-sized base, then scaled (py-faster-rcnn).

    Its corners are inclusive pixel indices around the centre (stride - 1) / 2; here x2 and y2 are one larger,
    which is the same box in continuous pixels: (-84, -40, 99, 55) becomes (-84, -40, 100, 56).
    """

    def __init__(
        self,
        *,
        sizes: Sizes,
        octaves: Sizes = (1.0,),
        ratios: Sizes = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__(sizes=sizes, octaves=octaves, ratios=ratios, offset=0.5)

    def base(self, sizes: Sizes, stride: int) -> Tensor:
        """Anchors of one location, centred on (0, 0): [ratios * sizes * octaves, 4] float64."""
        rows = []
        for ratio in self.ratios:
            w = round(math.sqrt(stride * stride / ratio))
            h = round(w * ratio)
            for size in sizes:
                for octave in self.octaves:
                    scale = size * octave / stride
                    rows.append([-w * scale / 2, -h * scale / 2, w * scale / 2, h * scale / 2])
        return torch.tensor(rows, dtype=torch.float64)
