"""Pixels of every kind as 8-bit RGB: deep greys scaled by their range, alpha laid on a ground, never a black image."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageCms

from detlab.system.reading import ReadError

DEEP_MODES = ("F", "I")  # besides those that begin with I;16
FULL_SCALES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
DARK = 15  # the most that a 12-bit value leaves in the upper byte of 16 bits; nothing to see


def is_deep_mode(mode: str) -> bool:
    """Whether a mode of Pillow holds greys of more than 8 bits."""
    return mode in DEEP_MODES or mode.startswith("I;16")


def is_deep(image: Image.Image) -> bool:
    """Whether a file, opened and not yet loaded, holds more than 8 bits per channel; Pillow keeps colour's upper 8."""
    tiles = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return is_deep_mode(image.mode) or any(re.search(r"(RGB|RGBA|RGBX|LA|CMYK);16[BLN]", tile) for tile in tiles)


def to_rgb(image: Image.Image, *, deep: bool | None = None) -> np.ndarray:
    """Any PIL image as uint8 RGB [H, W, 3].

    Greys of 10 to 16 bits are divided by the full scale of the fewest bits that hold their largest value; floats in
    0..1 and 0..255 by theirs; other ranges go from their least value to their largest. Alpha is laid on black, or on
    white where black would leave nothing to see; it is passed over where every pixel is transparent.

    Args:
        deep: the file holds more than 8 bits per channel; None looks at the image, which must not be loaded yet.

    Raises:
        ReadError: colours of 12 bits in a file of 16, of which Pillow keeps the (black) upper byte only.
    """
    deep = is_deep(image) if deep is None else deep
    if is_deep_mode(image.mode):
        return np.repeat(_scaled(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_ground(image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA"))
    if image.mode == "LAB":
        image = _from_lab(image)
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if deep and 0 < pixels.max(initial=0) <= DARK:
        raise ReadError("holds colours of 12 bits or fewer in a file of 16, of which only black is read; save 8 bits")
    return pixels


def _scaled(values: np.ndarray) -> np.ndarray:
    """uint8 of greys in any range."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    else:
        values = values.astype(np.int64)
    low, high = values.min(initial=0), values.max(initial=0)
    if values.dtype.kind == "f":
        full = 1.0 if high <= 1 else 255.0 if high > 255 / 4 else np.inf
        fits = low >= 0 and high <= full < np.inf
    else:
        full = next((scale for scale in FULL_SCALES if high <= scale), np.inf)
        fits = low >= 0 and full < np.inf
    if fits and values.dtype.kind != "f" and full == 65535:
        return (values // 257).astype(np.uint8)  # 65535 / 255
    start, extent = (0, full) if fits else (values.min(initial=high), high - values.min(initial=high))
    if not extent:
        return np.full(values.shape, 0 if not high else 128, np.uint8)
    return ((values - start) * (255.0 / extent)).round().astype(np.uint8)


def _on_ground(image: Image.Image) -> np.ndarray:
    """A picture with alpha [H, W, 3] on black, or on white where black would hide it."""
    alpha = np.asarray(image)[..., 3]
    if not alpha.any():
        return np.array(image.convert("RGB"))
    for ground in (0, 255):
        below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
        pixels = np.array(Image.alpha_composite(below, image).convert("RGB"))
        if pixels.max() > DARK or (alpha == 255).all():
            break
    return pixels


def _from_lab(image: Image.Image) -> Image.Image:
    """CIE L*a*b* as sRGB, which `convert` refuses to do."""
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB")) or image
