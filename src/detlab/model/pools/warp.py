"""Warped crops of the image, one per RoI (R-CNN section 2.1 and appendix A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from detlab.model.pools.deterministic import adaptive_max
from detlab.ranges import Natural, Range
from detlab.tensors.structures import Level


class WarpedCrop(nn.Module):
    """Crops every RoI to one size, and pools the maps that the backbone makes of the crops.

    The backbone runs between the two steps: `crop` makes its input, `forward` fits its map to the head.

    Args:
        levels: the one map that the backbone makes of a crop.
        size: side of the pooled map; a smaller map stays as it is.
        crop: side of the crop, px (R-CNN's network takes 227, torchvision's take 224).
        context: px of the crop around the RoI (R-CNN: 16 of 227); outside the image they are the mean.
    """

    gives = "crops"

    spatial = True

    def __init__(
        self, *, levels: Sequence[Level], size: int, crop: Annotated[int, Range(1, 1024)] = 224, context: Natural = 16
    ) -> None:
        super().__init__()
        if not 0 <= 2 * context < crop:
            raise ValueError(
                f"model.pool.context={context} on both sides leaves nothing of model.pool.crop={crop}; use less."
            )
        self.names = [level.name for level in levels]
        self.crop_side, self.context = crop, context
        self.size = min(size, *(-(-crop // level.stride) for level in levels))

    @property
    def bins(self) -> int:
        """Values per channel."""
        return self.size * self.size

    def crop(self, images: Tensor, rois: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] and RoIs [N, 5] (index, x1, y1, x2, y2; px) -> [N, 3, crop, crop].

        Each pixel is the mean of as many bilinear samples as it covers image pixels, so that large RoIs are not
        aliased.
        """
        index, boxes = rois[:, :1], rois[:, 1:]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 * (self.crop_side / (self.crop_side - 2 * self.context))
        wide = torch.cat([index, centre - half, centre + half], dim=1)
        side = self.crop_side  # the operator itself: torchvision's deterministic form would take terabytes here
        crops = torch.ops.torchvision.roi_align(images.contiguous(), wide.to(images.dtype), 1.0, side, side, 0, True)
        return crops.contiguous(memory_format=torch.channels_last)

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """The map of N crops, [N, C, h, w] -> [N, C, size, size] by maxima (VGG-16's pool5 at 224 px).

        The RoIs [N, 5] are those of `crop` and are not read again.
        """
        x = features[self.names[0]]
        return x if x.shape[-1] == self.size else adaptive_max(x, self.size)
