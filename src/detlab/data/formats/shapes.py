"""Generated pictures of rectangles, ellipses and triangles: no files, no network, a function of (seed, index).

Its options are properties on which detectors differ: object size, count, overlap, class imbalance, clutter, texture.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Collection, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detlab.data.audit import AuditReport
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS, Source, Splits
from detlab.data.records import Classes, Record, record
from detlab.errors import DataError
from detlab.ranges import Fraction, Natural, NonNegative, OptionsOf, Positive, Range, Side, Size

CLASSES = ("rectangle", "ellipse", "triangle")
SPLIT_NUMBERS = {"train": 0, "val": 1, "test": 2}
PLACING_TRIES = 30  # positions tried before an object that would overlap too much is left out
BACKGROUND_RANGE, OBJECT_RANGE = (40, 215), (20, 235)  # grey values of the colours drawn


class Shape(NamedTuple):
    """One object: its class and its box in whole pixels."""

    label: int
    box: tuple[int, int, int, int]  # x1, y1, x2, y2


class Shapes(Source):
    """Pictures that are drawn when they are read.

    Args:
        counts: {train, val, test: number of pictures}.
        side: height and width, px.
        objects: smallest and largest number of objects in a picture.
        sizes: smallest and largest width (and height) of an object, px.
        max_overlap: largest share of an earlier object that a later one may cover.
        imbalance: 1 makes all classes equally frequent; r makes each class r times rarer than the one before.
        clutter: largest number of strokes drawn behind the objects.
        texture: amplitude of the stripes on objects, grey values.
        noise: standard deviation of the noise everywhere, grey values.
        box_noise: share of the training boxes that are wrong: moved by up to half of their sides, and longer or
            shorter by up to half. Val and test keep the true boxes.
        seed: of the pictures; it is not the run's seed, so that runs are compared on the same pictures.
    """

    def __init__(
        self,
        *,
        counts: dict[str, int],
        side: int = 128,
        objects: Sequence[int] = (1, 6),
        sizes: Sequence[int] = (14, 56),
        max_overlap: float = 0.7,
        imbalance: float = 1.0,
        clutter: int = 0,
        texture: float = 18.0,
        noise: float = 12.0,
        box_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 < sizes[0] <= sizes[1] <= side:
            raise DataError(f"data.sizes={list(sizes)} must rise and fit into data.side={side}.")
        if not 0 <= objects[0] <= objects[1] or imbalance <= 0:
            raise DataError(f"data.objects={list(objects)} must rise, and data.imbalance={imbalance} be positive.")
        if not 0 <= box_noise <= 1:
            raise DataError(f"data.box_noise={box_noise} is a share of the training boxes; use 0 to 1.")
        self.box_noise = box_noise
        self.counts, self.side, self.objects, self.sizes = counts, side, tuple(objects), tuple(sizes)
        self.max_overlap, self.clutter = max_overlap, clutter
        self.texture, self.noise, self.seed = texture, noise, seed
        chances = np.array([1 / imbalance**i for i in range(len(CLASSES))])
        self.chances = (chances / chances.sum()).cumsum()[:-1].tolist()  # upper bounds of all classes but the last

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        splits: dict[str, list[Record]] = {}
        for split, count in self.counts.items():
            if split not in wanted:
                continue
            # Ids contain the split, so that a picture can be drawn from its id.
            start = SPLIT_NUMBERS[split] * 10_000_000 + 1
            splits[split] = [self._record(start + i, split) for i in range(count)]
        return Classes(CLASSES, tuple(range(1, len(CLASSES) + 1))), splits

    def image(self, item: Record) -> Tensor:
        """uint8 RGB [3, side, side]."""
        rng = np.random.default_rng([self.seed, item.id])
        shapes = self._layout(item.id)
        return torch.from_numpy(self._draw(rng, shapes)).permute(2, 0, 1).contiguous()

    def _record(self, id: int, split: str) -> Record:
        shapes = self._layout(id)
        boxes = [shape.box for shape in shapes]
        if split == "train" and self.box_noise:
            boxes = self._mislabelled(id, boxes)
        return record(
            id=id,
            name=f"{split}-{id % 10_000_000:06d}.png",
            path=None,
            size=(self.side, self.side),
            objects=[{"box": box, "label": shape.label} for box, shape in zip(boxes, shapes, strict=True)],
        )

    def _layout(self, id: int) -> list[Shape]:
        draw = random.Random(f"{self.seed}:{id}").random  # several times faster than numpy for single numbers

        def whole(low: int, high: int) -> int:
            return low + int(draw() * (high - low + 1))

        shapes: list[Shape] = []
        for _ in range(whole(*self.objects)):
            label = bisect.bisect(self.chances, draw())
            for _ in range(PLACING_TRIES):
                w, h = whole(*self.sizes), whole(*self.sizes)
                x, y = whole(0, self.side - w), whole(0, self.side - h)
                box = (x, y, x + w, y + h)
                if all(_covered(shape.box, box) <= self.max_overlap for shape in shapes):
                    shapes.append(Shape(label, box))
                    break
        return shapes

    def _mislabelled(self, id: int, boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
        """The boxes, some of them moved and stretched within the picture."""
        draw = random.Random(f"boxes:{self.seed}:{id}").random

        def side(low: int, high: int) -> tuple[int, int]:
            length = (high - low) * (0.5 + draw())
            middle = (low + high) / 2 + (high - low) * (draw() - 0.5)
            start = min(max(round(middle - length / 2), 0), self.side - 1)
            return start, max(min(round(middle + length / 2), self.side), start + 1)

        found = []
        for x1, y1, x2, y2 in boxes:
            if draw() < self.box_noise:
                (x1, x2), (y1, y2) = side(x1, x2), side(y1, y2)
            found.append((x1, y1, x2, y2))
        return found

    def _draw(self, rng: np.random.Generator, shapes: list[Shape]) -> np.ndarray:
        side = self.side
        y, x = np.mgrid[0:side, 0:side].astype(np.float32)
        low, high = rng.uniform(*BACKGROUND_RANGE, (2, 3)).astype(np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        ramp = (ramp - ramp.min()) / np.ptp(ramp)
        picture = low + (high - low) * ramp[..., None]
        for _ in range(rng.integers(0, self.clutter + 1)):
            self._stroke(rng, picture)
        for shape in shapes:
            self._paint(rng, picture, shape)
        picture += self.noise * rng.standard_normal(picture.shape, np.float32)
        return picture.clip(0, 255).astype(np.uint8)

    def _paint(self, rng: np.random.Generator, picture: np.ndarray, shape: Shape) -> None:
        x1, y1, x2, y2 = shape.box
        h, w = y2 - y1, x2 - x1
        v, u = np.mgrid[0:h, 0:w].astype(np.float32)
        across, down = (2 * u + 1) / w - 1, (2 * v + 1) / h - 1  # pixel centres in [-1, 1]
        if CLASSES[shape.label] == "rectangle":
            mask = np.ones((h, w), bool)
        elif CLASSES[shape.label] == "ellipse":
            mask = across**2 + down**2 <= 1 + 1 / max(h, w)  # so that the border pixels are reached
        else:
            if rng.random() < 0.5:
                down = -down
            mask = np.abs(across) <= (down + 1) / 2 + 1 / w
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8)  # stripes, radians per px
        stripes = np.sin(pitch * (np.cos(angle) * u + np.sin(angle) * v))
        colour = rng.uniform(*OBJECT_RANGE, 3).astype(np.float32)
        grain = 10 * rng.standard_normal((h, w), np.float32)
        surface = colour + (np.float32(self.texture) * stripes + grain)[..., None]
        region = picture[y1:y2, x1:x2]
        region[mask] = surface[mask]

    def _stroke(self, rng: np.random.Generator, picture: np.ndarray) -> None:
        """A line of random colour and direction, 1 to 3 px wide."""
        side = self.side
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-side / 2, side / 2)
        y, x = np.mgrid[0:side, 0:side] - side / 2
        near = np.abs(np.cos(angle) * x + np.sin(angle) * y - offset) <= rng.uniform(0.5, 1.5)
        picture[near] = rng.uniform(*OBJECT_RANGE, 3)


def shapes(
    *,
    counts: dict[str, Annotated[int, Range(0, 1_000_000)]],
    side: Annotated[int, Range(1, 10_000)],
    objects: Annotated[Sequence[Annotated[int, Range(0, 1000)]], Size(2, 2)],
    sizes: Annotated[Sequence[Side], Size(2, 2)],
    max_overlap: Fraction,
    imbalance: Positive,
    clutter: Annotated[int, Range(0, 1000)],
    texture: NonNegative,
    noise: NonNegative,
    box_noise: Fraction,
    shapes_seed: Natural,
    root: str | None = None,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """The generated data set; `loading` goes to `DetectionData`. `root` is not used; every data set has it."""
    source = Shapes(
        counts=counts,
        side=side,
        objects=objects,
        sizes=sizes,
        max_overlap=max_overlap,
        imbalance=imbalance,
        clutter=clutter,
        texture=texture,
        noise=noise,
        box_noise=box_noise,
        seed=shapes_seed,
    )
    return DetectionData(source=source, **loading)


def _covered(old: tuple[int, int, int, int], new: tuple[int, int, int, int]) -> float:
    """Share of the old box that the new one covers."""
    w = min(old[2], new[2]) - max(old[0], new[0])
    h = min(old[3], new[3]) - max(old[1], new[1])
    return max(w, 0) * max(h, 0) / ((old[2] - old[0]) * (old[3] - old[1]))
