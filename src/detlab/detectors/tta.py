"""Test-time augmentation: any detector runs on several scales and mirror images, and NMS merges the detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.detectors.detector import Detector
from detlab.errors import ConfigError
from detlab.model.detect import Detect
from detlab.ranges import Fraction, PerImage, Range, Size
from detlab.tensors.boxes import clip
from detlab.tensors.structures import Batch, Detections, Proposals


class TTA:
    """Detects on several views of each batch.

    Args:
        detector: any family; its own final selection is applied to every view first.
        divisor: canvas sides are padded to multiples of it.
        scales: factors of the images' sides; 1.0 is the canvas as it is.
        flip: detect on the mirror image of every scale, too.
        nms_threshold: IoU above which the merge drops the lower-scored one of two boxes of a class; None for the
            detector's own.
        max_detections: boxes kept per image; None for the detector's own.

    Raises:
        ValueError: a scale that is not positive, or none.
        ConfigError: null options, and a detector without a selection of its own.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        divisor: int = 32,
        scales: Annotated[Sequence[Annotated[float, Range(0, 4, open_low=True)]], Size(1, 16)] = (1.0,),
        flip: bool = False,
        nms_threshold: Fraction | None = None,
        max_detections: PerImage | None = None,
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ValueError(f"tta.scales={list(scales)} needs positive factors; use [1.0] for the image as it is.")
        self.detector, self.divisor = detector, divisor
        self.scales, self.flip = tuple(scales), flip
        self.nms_threshold, self.max_detections = nms_threshold, max_detections
        if self.active and detector.selection is None and None in (nms_threshold, max_detections):
            raise ConfigError(
                f"tta merges the views by NMS, and {type(detector).__name__} has no selection that would give the null "
                f"options; set both tta.nms_threshold=0.5 and tta.max_detections=100, or use tta=none."
            )

    @property
    def active(self) -> bool:
        """Whether there are other views than the image as it is."""
        return self.flip or self.scales != (1.0,)

    @torch.no_grad()
    def detect(self, batch: Batch) -> Detections:
        """Detections of all views in pixels of the batch's canvas, D = max_detections rows per image."""
        views = []
        for scale in self.scales:
            view = scaled(batch, scale, self.divisor)
            sides = scaled_sides(batch.canvas, scale)
            factor = torch.tensor(batch.canvas, dtype=torch.float32) / torch.tensor(sides)  # y, x
            factor = factor.flip(0).repeat(2).to(batch.images.device)
            views.append(_mapped(self.detector.detect(view), factor))
            if self.flip:
                mirrored = self.detector.detect(flipped(view))
                back = flip_boxes(mirrored.boxes, view.sizes)
                views.append(_mapped(mirrored._replace(boxes=back), factor))
        boxes, scores, labels = (torch.cat(field, dim=1) for field in zip(*views, strict=True))
        return self._merge().suppress(clip(boxes, batch.sizes), scores, labels)

    def _merge(self) -> Detect:
        return Detect(
            score_threshold=0.0,  # the detector's own was applied to each view
            nms_threshold=self._chosen("nms_threshold"),
            max_detections=self._chosen("max_detections"),
        )

    def _chosen(self, option: str) -> Any:
        given = getattr(self, option)
        return getattr(self.detector.selection, option) if given is None else given


def scaled(batch: Batch, scale: float, divisor: int) -> Batch:
    """A batch without targets at `scale` times the size, padded with 0 until the sides are multiples of `divisor`.

    Scale 1 keeps the canvas as it is.
    """
    if scale == 1.0:
        return batch._replace(targets=None)
    height, width = scaled_sides(batch.canvas, scale)
    factor = torch.tensor([height / batch.canvas[0], width / batch.canvas[1]], device=batch.images.device)
    sizes = (batch.sizes * factor).ceil().long().clamp(max=torch.tensor([height, width], device=factor.device))
    proposals = batch.proposals
    if proposals is not None:
        proposals = proposals._replace(boxes=proposals.boxes * factor.flip(0).repeat(2))
    images = F.pad(F.resize(batch.images, [height, width], antialias=True), [0, 0, -width % divisor, -height % divisor])
    return batch._replace(images=images, sizes=sizes, targets=None, proposals=proposals)


def scaled_sides(canvas: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of what a canvas holds at `scale` times its size, px, without padding."""
    height, width = (max(1, round(side * scale)) for side in canvas)
    return height, width


def flipped(batch: Batch) -> Batch:
    """Every image mirrored within its own width, so that it stays in the top left corner; targets are dropped."""
    column = torch.arange(batch.canvas[1], device=batch.images.device)
    width = batch.sizes[:, 1:]
    source = torch.where(column < width, width - 1 - column, column)  # [B, W]
    images = batch.images.gather(3, source[:, None, None].expand_as(batch.images))
    proposals = batch.proposals
    if proposals is not None:
        proposals = Proposals(flip_boxes(proposals.boxes, batch.sizes), proposals.scores)
    return batch._replace(images=images, targets=None, proposals=proposals)


def flip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [B, D, 4] mirrored within images of sizes [B, 2] (height, width)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = sizes[:, 1:].to(boxes.dtype)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)


def _mapped(found: Detections, factor: Tensor) -> Detections:
    return found._replace(boxes=found.boxes * factor)
