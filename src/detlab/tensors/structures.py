"""Tensors that flow between data, detectors and metrics.

Shape legend used everywhere:
    B images, M padded ground-truth boxes, L levels, A anchors (all levels), K classes, O class outputs,
    R proposals, S sampled RoIs, D detections.

Boxes are float32 (x1, y1, x2, y2) in continuous pixels (COCO convention: w = x2 - x1) of the padded canvas
unless a name says "original". Labels are 0..K-1; K is background; -1 is padding or "ignore".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PADDING = -1  # the label of a padded row


def fixed_shapes(x: Tensor) -> bool:
    """Whether code on `x` should keep fixed shapes and mask unwanted rows, instead of selecting the wanted ones.

    On a GPU selecting makes the host wait for the number of rows, and a compiled or exported graph cannot have shapes
    that depend on values. On a CPU selecting saves work.
    """
    return x.is_cuda or in_graph()


def in_graph() -> bool:
    """Whether this code is being compiled or exported; a graph has no loops that depend on values."""
    return torch.compiler.is_compiling()


class Level(NamedTuple):
    """One feature map: its name ("C4", "P3"), its channels and its stride in canvas pixels.

    `shrink` is the number of rows (and columns) that unpadded convs removed: 2 for one 3x3, as on SSD's way from 5x5
    to 3x3.
    """

    name: str
    channels: int
    stride: int
    shrink: int = 0

    def size(self, canvas: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of this level's map on a canvas of (height, width): ceil(side / stride) - shrink, >= 1."""
        rows, columns = (max(1, -(-side // self.stride) - self.shrink) for side in canvas)
        return rows, columns


class Targets(NamedTuple):
    """Ground truth of a batch, padded to the largest image. Rows with label -1 are padding."""

    boxes: Tensor  # [B, M, 4] float32, canvas pixels; 0 where padded
    labels: Tensor  # [B, M] int64; -1 where padded
    area: Tensor  # [B, M] float32, px^2 of the canvas
    crowd: Tensor  # [B, M] bool
    difficult: Tensor  # [B, M] bool

    @property
    def real(self) -> Tensor:
        """[B, M] bool: the rows that are boxes, not padding."""
        return self.labels >= 0

    def agnostic(self) -> Targets:
        """The same boxes with every class made class 0 (padding stays)."""
        return self._replace(labels=self.labels.clamp(max=0))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        return Targets(*(t.to(device, non_blocking=non_blocking) for t in self))


class Proposals(NamedTuple):
    """Class-agnostic boxes of a batch. Rows with score below 0 are padding."""

    boxes: Tensor  # [B, R, 4] float32, canvas pixels
    scores: Tensor  # [B, R] float32; -1 where padded

    @property
    def real(self) -> Tensor:
        """[B, R] bool: the rows that are boxes, not padding."""
        return self.scores >= 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Proposals:
        return Proposals(*(t.to(device, non_blocking=non_blocking) for t in self))


class Batch(NamedTuple):
    """A batch, as the data layer gives it to a detector.

    Every image lies in the top left corner of its canvas. `keys` seeds the random draws of assignment (see
    `detlab.model.samplers`); where it is None the image ids are used.
    """

    images: Tensor  # [B, 3, H, W] uint8 RGB, 0 where padded
    sizes: Tensor  # [B, 2] int64 (height, width) of the image inside the canvas
    original_sizes: Tensor  # [B, 2] int64 (height, width) of the image as stored
    ids: Tensor  # [B] int64 image ids, unique within a data set
    targets: Targets | None = None
    proposals: Proposals | None = None
    keys: Tensor | None = None  # [B] int64
    seen: Tensor | None = None  # [] int64: images trained on before this batch; None outside training

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the padded canvas, px."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def truth(self) -> Targets:
        """The targets, for a loss.

        Raises:
            ValueError: the batch has none.
        """
        if self.targets is None:
            raise ValueError("This batch has no targets, and a loss needs them; give Batch(..., targets=Targets(...)).")
        return self.targets

    @property
    def draw_keys(self) -> Tensor:
        """[B] int64: seeds of this batch's random draws."""
        return self.ids if self.keys is None else self.keys

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        there = {k: v.to(device, non_blocking=non_blocking) for k, v in self._asdict().items() if v is not None}
        return self._replace(**there)


class Prediction(NamedTuple):
    """Raw outputs of a head, one row per anchor (or RoI), in the order (level, row, column, anchor)."""

    logits: Tensor  # [B, A, O]
    deltas: Tensor  # [B, A, 4], or [B, A, K, 4] for a RoI head with one box per class
    objectness: Tensor | None = None  # [B, A], for families that score objectness and class separately

    @property
    def scored(self) -> Tensor:
        """[B, A] objectness logits.

        Raises:
            ValueError: the head gives none.
        """
        if self.objectness is None:
            raise ValueError("model/head gives no objectness, and this family needs it; use model/head=yolo.")
        return self.objectness


class Detections(NamedTuple):
    """Final boxes of a batch, by falling score. Rows with label -1 are padding."""

    boxes: Tensor  # [B, D, 4] float32
    scores: Tensor  # [B, D] float32; 0 where padded
    labels: Tensor  # [B, D] int64; -1 where padded

    @property
    def real(self) -> Tensor:
        """[B, D] bool: the rows that are boxes, not padding."""
        return self.labels >= 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Detections:
        return Detections(*(t.to(device, non_blocking=non_blocking) for t in self))


class GroundTruth(NamedTuple):
    """Annotations of one whole split in original-image pixels, as flat arrays; the input of a metric.

    N images, G boxes. `box_image` holds image *ids*, not row numbers.
    """

    image_ids: Tensor  # [N] int64, unique
    sizes: Tensor  # [N, 2] int64 (height, width)
    box_image: Tensor  # [G] int64
    boxes: Tensor  # [G, 4] float64 xyxy
    labels: Tensor  # [G] int64, 0..K-1
    area: Tensor  # [G] float64, the annotation's own area (a segment's, where it has one)
    crowd: Tensor  # [G] bool
    difficult: Tensor  # [G] bool
    class_names: tuple[str, ...]  # K names
    category_ids: tuple[int, ...]  # K ids as the annotation file numbers them
    file_names: tuple[str, ...]  # N paths or names, for reports
