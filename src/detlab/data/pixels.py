"""Conversion of any pixels to 8-bit RGB: deep greys are scaled by their range, alpha is put on a background.

"Deep" means more than 8 bits per channel.
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageCms

from detlab.system.reading import ReadError

DEEP_MODES = ("F", "I")  # besides those that begin with I;16
FULL_SCALES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
DARK = 15  # largest upper byte of a 12-bit value stored in 16 bits: the image looks black


def is_deep_mode(mode: str) -> bool:
    """Whether a Pillow mode holds greys of more than 8 bits."""
    return mode in DEEP_MODES or mode.startswith("I;16")


def is_deep(image: Image.Image) -> bool:
    """Whether a file, opened but not loaded, has more than 8 bits per channel; of colours Pillow keeps the upper 8."""
    tiles = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return is_deep_mode(image.mode) or any(re.search(r"(RGB|RGBA|RGBX|LA|CMYK);16[BLN]", tile) for tile in tiles)


def to_rgb(image: Image.Image, *, deep: bool | None = None) -> np.ndarray:
    """Any PIL image as uint8 RGB [H, W, 3].

    Greys of 10 to 16 bits are divided by the full scale of the fewest bits that hold their largest value, floats in
    0..1 and 0..255 by 1 and 255; other ranges are stretched from their smallest to their largest value. Alpha is
    put on black, or on white where the image would be invisible on black; if every pixel is transparent, alpha is
    ignored.

    Args:
        deep: the file has more than 8 bits per channel; None reads this from the image, which must not be loaded yet.

    Raises:
        ReadError: colours of 12 bits in a file of 16, of which Pillow keeps only the (black) upper byte.
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
    """Greys in any range, scaled to uint8."""
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
    """A picture with alpha as uint8 RGB [H, W, 3], on black, or on white where it would be invisible on black."""
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
    """CIE L*a*b* as sRGB; `Image.convert` does not support it."""
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB")) or image
