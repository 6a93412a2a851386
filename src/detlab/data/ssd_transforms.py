"""SSD's augmentation (SSD section 2.2): torchvision's v2 transforms with equal draws and results, in half of the time.

Each class takes its options, its random draws and, bit for bit, its results from the transform that it extends;
`tests/data/test_ssd_transforms.py` compares them. What differs is how the results are computed: hues on planes of
bytes without torchvision's stacks and gathers, crops with a dozen numbers in numpy instead of tensors, canvases filled
row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.ranges import Count

STRIP = 1 << 16  # pixels whose hue is shifted at once, so that they stay in the cache


class PhotometricDistort(v2.RandomPhotometricDistort):
    """torchvision's RandomPhotometricDistort: brightness, contrast, saturation, hue and order of channels."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Distort an image; boxes stay."""
        if not isinstance(inpt, tv_tensors.Image) or inpt.dtype != torch.uint8 or params["hue_factor"] is None:
            return super().transform(inpt, params)
        none = dict.fromkeys(params)
        after = params["contrast_factor"] if not params["contrast_before"] else None
        first = params | {"hue_factor": None, "channel_permutation": None}
        first |= {"contrast_factor": params["contrast_factor"] if params["contrast_before"] else None}
        last = none | {"contrast_factor": after, "contrast_before": False}
        last |= {"channel_permutation": params["channel_permutation"]}
        image = super().transform(inpt, first)
        shifted = tv_tensors.wrap(shifted_hue(image.as_subclass(Tensor), params["hue_factor"]), like=inpt)
        return super().transform(shifted, last)


class ZoomOut(v2.RandomZoomOut):
    """torchvision's RandomZoomOut: the image at a random place of a larger canvas."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad an image or boxes."""
        fill = self.fill
        plain = isinstance(inpt, tv_tensors.Image) and inpt.dtype == torch.uint8 and isinstance(fill, list | tuple)
        if not plain or len(fill) != inpt.shape[0]:
            return super().transform(inpt, params)
        left, top, right, bottom = params["padding"]
        channels, height, width = inpt.shape
        row = torch.tensor(fill).to(torch.uint8).repeat(left + width + right)
        canvas = torch.empty(top + height + bottom, len(row), dtype=torch.uint8)
        canvas[:] = row
        picture = canvas.view(len(canvas), -1, channels).permute(2, 0, 1)
        picture[:, top : top + height, left : left + width] = inpt.as_subclass(Tensor)
        return tv_tensors.wrap(picture, like=inpt)


class IoUCropOrNot(v2.Transform):
    """torchvision's RandomIoUCrop, without the boxes outside the crop.

    Only the ground truth decides where it crops; proposals are cropped with the image.

    Args:
        trials: tries per drawn overlap.
    """

    def __init__(self, trials: Count = 40) -> None:
        super().__init__()
        self.crop = v2.RandomIoUCrop(trials=trials)

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Crop a sample; an image without boxes is not cropped, since the crop needs an overlap with boxes."""
        if len(sample["boxes"]) == 0:
            return sample
        place = self.place(sample["image"].shape[-2:], sample["boxes"])
        if place is None:
            return sample
        inside = place.pop("is_within_crop_area")
        cropped = {k: F.crop(sample[k], **place) for k in ("image", "boxes", "proposals") if k in sample}
        kept = inside & (cropped["boxes"][:, 2:] - cropped["boxes"][:, :2] >= 1).all(dim=1)
        rows = {name: sample[name][kept] for name in ("labels", "area", "crowd", "difficult")}
        cropped["boxes"] = tv_tensors.wrap(cropped["boxes"][kept], like=cropped["boxes"])
        return sample | cropped | rows

    def place(self, size: tuple[int, int], boxes: Tensor) -> dict[str, Any] | None:
        """What RandomIoUCrop.make_params draws for an image of (height, width), and None where it crops nothing.

        The numbers are float32, as its tensors are.
        """
        (height, width), crop = size, self.crop
        low, extent = np.float32(crop.min_scale), np.float32(crop.max_scale - crop.min_scale)
        x1, y1, x2, y2 = corners = boxes.as_subclass(Tensor).numpy().T
        centre_x, centre_y = np.float32(0.5) * (x1 + x2), np.float32(0.5) * (y1 + y2)
        area = (x2 - x1) * (y2 - y1)
        while True:
            overlap = crop.options[int(torch.randint(low=0, high=len(crop.options), size=(1,)))]
            if overlap >= 1.0:  # stands for "as it is"
                return None
            for _ in range(crop.trials):
                scale = low + extent * torch.rand(2).numpy()
                new_width, new_height = int(width * scale[0]), int(height * scale[1])
                if not crop.min_aspect_ratio <= new_width / new_height <= crop.max_aspect_ratio:
                    continue
                share = torch.rand(2).numpy()
                left, top = int((width - new_width) * share[0]), int((height - new_height) * share[1])
                right, bottom = left + new_width, top + new_height
                if left == right or top == bottom:
                    continue
                inside = (left < centre_x) & (centre_x < right) & (top < centre_y) & (centre_y < bottom)
                if not inside.any():
                    continue
                within = corners[:, inside].clip(
                    np.array([left, top, left, top], np.float32)[:, None],
                    np.array([right, bottom, right, bottom], np.float32)[:, None],
                )
                shared = (within[2] - within[0]) * (within[3] - within[1])
                union = area[inside] + np.float32(new_width * new_height) - shared
                if (shared / union).max() < np.float32(overlap):
                    continue
                sides = {"top": top, "left": left, "height": new_height, "width": new_width}
                return sides | {"is_within_crop_area": torch.from_numpy(inside)}


def shifted_hue(image: Tensor, shift: float) -> Tensor:
    """uint8 [3, H, W] with its hue shifted by -0.5 to 0.5 turns; the values of torchvision's `adjust_hue`."""
    pixels = image.numpy().reshape(3, -1)
    found = np.empty((pixels.shape[1], 3), np.uint8)
    for start in range(0, pixels.shape[1], STRIP):
        strip = np.ascontiguousarray(pixels[:, start : start + STRIP])
        for channel, plane in enumerate(_shifted(strip, shift)):
            found[start : start + STRIP, channel] = plane
    return torch.from_numpy(found).view(*image.shape[1:], 3).permute(2, 0, 1)


def _shifted(image: np.ndarray, shift: float) -> tuple[np.ndarray, ...]:
    """uint8 [3, N] -> its shifted red, green and blue, [N] each.

    Bytes are chosen with masks of 0 and 255 and `&`, which is several times as fast as `where`.
    """
    red, green, blue = image
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    is_red = _mask(high == red)
    is_green = _mask(high == green) & ~is_red
    is_blue = ~(is_red | is_green)
    # hue = offset + (high - a) / range - (high - b) / range, a and b the two channels after the highest
    a = (blue & is_red) | (red & is_green) | (green & is_blue)
    b = (green & is_red) | (blue & is_green) | (red & is_blue)
    offset = (is_green & 2) | (is_blue & 4)
    value = _unit(high)
    extent = value - _unit(low)
    divisor = extent + (high == low)  # 1 instead of 0
    hue = (value - _unit(a)) / divisor
    hue += offset
    hue -= (value - _unit(b)) / divisor
    hue *= 1.0 / 6.0
    hue += 1.0
    hue -= np.floor(hue)
    hue += shift
    hue -= np.floor(hue)
    hue *= 6
    sector = np.floor(hue)
    hue -= sector  # the share of its sector
    saturation = extent / (value + (high == 0))
    rest = 1.0 - saturation
    saturation *= hue
    falling = _byte((1.0 - saturation) * value)
    rising = _byte((saturation + rest) * value)
    least = _byte(rest * value)
    at = sector.astype(np.uint8)  # 6, like 0, where rounding made a whole turn
    first, *others = [_mask(at == i) for i in range(6)]
    in_sector = [first | _mask(at == 6), *others]

    def plane(most: int, fall: int, rise: int) -> np.ndarray:
        """A channel: the highest in sector `most` and the one before it, falling or rising beside them, else least."""
        highest = in_sector[most] | in_sector[most - 1]
        lowest = ~(highest | in_sector[fall] | in_sector[rise])
        return (high & highest) | (falling & in_sector[fall]) | (rising & in_sector[rise]) | (least & lowest)

    return plane(0, 1, 4), plane(2, 3, 0), plane(4, 5, 2)


def _mask(where: np.ndarray) -> np.ndarray:
    """bool -> uint8, 255 where true."""
    return -where.view(np.uint8)


def _unit(plane: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in 0..1, as torchvision's `to_dtype_image`."""
    scaled = plane.astype(np.float32)
    scaled *= np.float32(1.0 / 255.0)
    return scaled


def _byte(plane: np.ndarray) -> np.ndarray:
    """float32 in 0..1 -> uint8, as torchvision's `to_dtype_image`; it scales to just below 256 and cuts off."""
    plane = np.clip(plane, 0, 1, out=plane)
    plane *= np.float32(255.0 + 1.0 - 1e-3)
    return plane.astype(np.uint8)
