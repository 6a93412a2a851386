"""Resizing and geometric augmentation of samples, with torchvision's v2 transforms on tv_tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.ranges import BelowOne, Factor, Range, Size

MODES = ("short_side", "letterbox", "warp")


class Resize:
    """Resizes images and samples.

    Args:
        mode: short_side: the shorter side becomes `size`, the longer at most `max_size`. letterbox: fits into
            `size` = [height, width] with its aspect kept. warp: becomes exactly `size` = [height, width].
        size: px; one number for short_side (a square for the others), or two.
        max_size: px, for short_side; null for no limit.
    """

    def __init__(self, *, mode: str, size: int | Sequence[int], max_size: int | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"data.resize={mode} is not known; use one of {', '.join(MODES)}.")
        if mode == "short_side" and not isinstance(size, int):
            raise ValueError(
                f"data.size={list(size)} needs data.resize=letterbox or warp; short_side takes one number."
            )
        self.mode, self.max_size = mode, max_size
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def canvas(self) -> tuple[int, int] | None:
        """(height, width) if every image has the same size and needs no padding; None otherwise."""
        return self.size if self.mode == "warp" else None

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) an image of (height, width) is resized to; at least 1 px."""
        height, width = size
        if self.mode == "warp":
            return self.size
        if self.mode == "letterbox":
            scale = min(self.size[0] / height, self.size[1] / width)
        else:
            scale = self.size[0] / min(height, width)
            if self.max_size is not None:
                scale = min(scale, self.max_size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def image(self, image: Tensor) -> Tensor:
        """uint8 [3, h, w] resized, antialiased; returned as it is if it has the size already."""
        height, width = image.shape[-2:]
        wanted = self.target((height, width))
        if (height, width) == wanted:
            return image
        return F.resize(image, list(wanted), antialias=True)

    def sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A sample with keys image (tv_tensors.Image) and boxes (tv_tensors.BoundingBoxes) resized."""
        wanted = self.target(tuple(sample["image"].shape[-2:]))
        if tuple(sample["image"].shape[-2:]) == wanted:
            return sample
        return v2.Resize(list(wanted), antialias=True)(sample)


class LargeScaleJitter(v2.Transform):
    """Scale by a random factor and keep the canvas: crop where larger, pad where smaller (Simple Copy-Paste, 2021).

    Args:
        scale_range: smallest and largest factor.
    """

    def __init__(self, scale_range: Annotated[Sequence[Factor], Size(2, 2)] = (0.5, 2.0)) -> None:
        super().__init__()
        self.scale_range = tuple(scale_range)

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Jitter a sample; boxes are clipped to the canvas, so boxes outside of it have no area."""
        height, width = sample["image"].shape[-2:]
        low, high = self.scale_range
        scale = low + (high - low) * float(torch.rand(()))
        resized = [max(1, round(height * scale)), max(1, round(width * scale))]
        sample = v2.Resize(resized, antialias=True)(sample)
        if resized[0] < height or resized[1] < width:
            pad = [0, 0, max(0, width - resized[1]), max(0, height - resized[0])]
            sample = v2.Pad(pad)(sample)
        return v2.RandomCrop((height, width))(sample)


class AspectJitter(v2.Transform):
    """Random aspect ratio and position on a canvas of the same size: darknet's augmentation of YOLOv2 and YOLOv3.

    Each side is scaled by up to 1 +- jitter, which changes the aspect ratio; the image is then resized to fit the
    canvas and put at a random position of it, on grey.

    Args:
        jitter: largest change of a side, as a share of it.
        fill: grey value around the image.
    """

    def __init__(self, jitter: BelowOne = 0.3, fill: Annotated[int, Range(0, 255)] = 127) -> None:
        super().__init__()
        if not 0 <= jitter < 1:
            raise ValueError(f"augment.jitter={jitter} must be a share in 0..1.")
        self.jitter, self.fill = jitter, fill

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Jitter a sample with its boxes."""
        height, width = sample["image"].shape[-2:]
        change = 1 + self.jitter * (2 * torch.rand(2) - 1)
        aspect = width * float(change[0]) / (height * float(change[1]))
        new = (height, round(height * aspect)) if aspect < width / height else (round(width / aspect), width)
        new_h, new_w = max(1, min(height, new[0])), max(1, min(width, new[1]))
        left, top = (int(torch.randint(0, room + 1, ())) for room in (width - new_w, height - new_h))
        sample = v2.Resize([new_h, new_w], antialias=True)(sample)
        return v2.Pad([left, top, width - new_w - left, height - new_h - top], fill=self.fill)(sample)


def as_sample(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    area: Tensor,
    crowd: Tensor,
    difficult: Tensor,
    proposals: Tensor | None = None,
    proposal_scores: Tensor | None = None,
) -> dict[str, Any]:
    """tv_tensors of an image [3, h, w], its boxes [n, 4] and, if given, proposals [r, 4] (xyxy, px of that image)."""
    canvas = tuple(image.shape[-2:])
    given = {}
    if proposals is not None:
        regions = tv_tensors.BoundingBoxes(proposals, format="XYXY", canvas_size=canvas)
        given = {"proposals": regions, "proposal_scores": proposal_scores}
    return given | {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas),
        "labels": labels,
        "area": area,
        "crowd": crowd,
        "difficult": difficult,
    }
