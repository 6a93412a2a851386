"""Reading image files into uint8 RGB, whatever they hold: grey, alpha, 16 bit, EXIF rotation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MAX_PIXELS = 100_000_000  # larger files are refused before they are decoded (decompression bombs)
EXIF_ORIENTATION = 0x0112
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")


class ImageFacts(NamedTuple):
    """What one look at a file says."""

    size: tuple[int, int]  # (height, width) as displayed
    raw_size: tuple[int, int]  # (height, width) as stored
    mode: str  # PIL's mode
    rotated: bool  # the EXIF orientation turns or mirrors it


class ImageError(ValueError):
    """A file that cannot be used as an image, with the reason."""


def inspect(path: Path, *, decode: bool, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Look at a file; with `decode` every pixel is read, so that truncated files are found.

    Raises:
        ImageError: the file is no image, truncated, or larger than max_pixels.
    """
    with _opened(path, max_pixels) as image, _damage_told():
        if decode:
            image.load()
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        width, height = image.size
        raw = (height, width)
        shown = (width, height) if orientation in (5, 6, 7, 8) else raw
        return ImageFacts(shown, raw, image.mode, orientation not in (0, 1))


def read_image(path: Path, *, rotate: bool = True, max_pixels: int = MAX_PIXELS) -> Tensor:
    """uint8 RGB [3, H, W]. Alpha is laid on black, 16 bits are scaled to 8, the EXIF rotation is applied.

    Raises:
        ImageError: the file is no image, truncated, or larger than max_pixels.
    """
    with _opened(path, max_pixels) as image, _damage_told():
        image.load()
        if rotate:
            image = ImageOps.exif_transpose(image)
        return torch.from_numpy(to_rgb(image)).permute(2, 0, 1).contiguous()


def to_rgb(image: Image.Image) -> np.ndarray:
    """Any PIL image as uint8 RGB [H, W, 3]."""
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        grey = (values // 257).astype(np.uint8)  # 65535 / 255
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _opened(path: Path, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ImageError(f"more pixels than data.max_pixels={max_pixels}") from error
    except Exception as error:  # PIL's plugins raise many kinds on damaged headers
        raise ImageError(f"not a readable image ({type(error).__name__})") from error
    if image.size[0] * image.size[1] > max_pixels:
        image.close()
        raise ImageError(f"{image.size[0]}x{image.size[1]} is more than data.max_pixels={max_pixels}")
    return image


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # truncated or damaged data; the kind depends on the format
        raise ImageError(f"truncated or damaged ({type(error).__name__})") from error
