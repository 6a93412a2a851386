"""Image files as uint8 RGB, in every format that Pillow decodes; data sets and `detlab predict` read the same ones."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from detlab.data.pixels import is_deep, to_rgb
from detlab.data.places import files_below
from detlab.system.reading import ReadError, open_regular

MAX_PIXELS = 100_000_000  # larger files are refused before they are decoded (decompression bombs)
EXIF_ORIENTATION = 0x0112
TURNED = range(2, 9)  # orientations that rotate or mirror
JPEGS = {"JPEG", "MPO"}  # an MPO begins with a JPEG, the picture that is read
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF", "IPTC"}  # Pillow runs other programs, or cannot decode them
MOVING = {"GIF", "WEBP", "PNG", "TIFF", "AVIF", "FLI"}  # may hold several pictures; an MPO's others are previews
COMPANIONS = {".txt", ".xml", ".json", ".jsonl", ".yaml", ".yml", ".csv", ".cache", ".md", ".names", ".data"}
COMPANION_NAMES = {"thumbs.db", "desktop.ini"}


def hush_pillow() -> None:
    """Hide Pillow's warnings, which name no file; `ImageError` does.

    For the whole process: threads that leave `warnings.catch_warnings` may restore each other's filters.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


hush_pillow()


class ImageFacts(NamedTuple):
    """Facts of an image file."""

    size: tuple[int, int]  # (height, width) as displayed
    raw_size: tuple[int, int]  # (height, width) as stored
    mode: str  # PIL's mode
    rotated: bool  # the EXIF orientation rotates or mirrors it
    several: bool = False  # the file holds more than one picture; the first is read


class ImageError(ValueError):
    """A file that cannot be used as an image, with the reason."""


class Listing(NamedTuple):
    """The files of a folder."""

    images: list[Path]  # by name
    skipped: list[Path]  # neither readable images nor files that usually lie beside images


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - NOT_READ))


@cache
def suffixes() -> frozenset[str]:
    """The file name extensions of those formats, in small letters and with their dot."""
    named = {s for s, kind in Image.registered_extensions().items() if kind in formats()}
    return frozenset(named | {".mpo"})  # Pillow opens an MPO as a JPEG and registers no extension for it


def list_images(folder: Path, top: Path | None = None) -> Listing:
    """Every image file below a folder, following links (to folders below `top`), and the other files.

    A file with an unknown extension is an image if its header is one. Hidden files and files that usually lie beside
    images (labels, lists, notes) are left out.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    for path in files_below(folder, top):
        suffix = path.suffix.lower()
        if suffix in COMPANIONS or path.name.lower() in COMPANION_NAMES:
            continue
        (images if is_image(path) else skipped).append(path)
    return Listing(sorted(images), skipped)


def is_image(path: Path) -> bool:
    """Whether a file has the extension of an image, or the header of one."""
    return (path.suffix.lower() in suffixes() and path.is_file()) or _begins_as_image(path)


def inspect(path: Path, *, decode: bool, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Facts of a file; with `decode` every pixel is read, so that truncated files are found.

    Raises:
        ImageError: the file is no image, truncated, or larger than max_pixels.
    """
    with _opened(path, max_pixels) as (_, image):
        # not n_frames: Pillow counts a TIFF's in quadratic time, an hour for a small file of empty ones
        several = image.format in MOVING and bool(getattr(image, "is_animated", False))
        mode, deep = image.mode, is_deep(image)
        if decode:
            image.load()
            if deep:
                to_rgb(image, deep=True)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        width, height = image.size
        raw = (height, width)
        shown = (width, height) if orientation in (5, 6, 7, 8) else raw
        return ImageFacts(shown, raw, mode, orientation in TURNED, several)


def read_image(path: Path, *, rotate: bool = True, max_pixels: int = MAX_PIXELS) -> Tensor:
    """uint8 RGB [3, H, W], channels-last in memory, of the first picture of a file.

    Plain JPEGs are decoded by torchvision, in half of Pillow's time and to the same values; Pillow reads (and judges)
    all others, and `to_rgb` converts them.

    Args:
        rotate: apply the EXIF orientation.

    Raises:
        ImageError: the file is no image, truncated, or larger than max_pixels.
    """
    with _opened(path, max_pixels) as (file, image):
        plain = _plain_jpeg(file, image, rotate)
        if plain is not None:
            return plain
        deep = is_deep(image)
        image.load()
        pixels = to_rgb(ImageOps.exif_transpose(image) if rotate else image, deep=deep)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _plain_jpeg(file: BinaryIO, image: Image.Image, rotate: bool) -> Tensor | None:
    """uint8 [3, H, W] of a JPEG in RGB or grey, not to be turned; None for others, and for damaged ones."""
    if image.format not in JPEGS or image.mode not in ("RGB", "L"):
        return None
    if rotate and image.getexif().get(EXIF_ORIENTATION, 1) in TURNED:
        return None
    file.seek(0)
    data = np.frombuffer(bytearray(file.read()), np.uint8)
    try:
        pixels = decode_jpeg(torch.from_numpy(data), mode=ImageReadMode.RGB)
    except RuntimeError:  # truncated, or a kind of JPEG that this build of torchvision does not read
        return None
    return pixels if tuple(pixels.shape) == (3, image.height, image.width) else None


def _begins_as_image(path: Path) -> bool:
    try:
        with _opened(path, MAX_PIXELS):
            return True
    except ImageError:
        return False


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """A file, also as an image that is not decoded yet; every error, here or in its use, becomes an ImageError."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own limit would otherwise refuse what the option allows
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, ReadError) else f"cannot be opened ({type(error).__name__})"
        raise ImageError(reason) from error
    with file:
        image = _recognised(file, max_pixels)
        try:
            yield file, image
        except Exception as error:  # truncated or damaged data; the kind depends on the format
            known = isinstance(error, ReadError)
            reason = str(error) if known else f"truncated or damaged ({type(error).__name__})"
            raise ImageError(reason) from error


def _recognised(file: BinaryIO, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(file, formats=formats())
    except Image.DecompressionBombError as error:
        raise ImageError(f"more pixels than data.max_pixels={max_pixels}") from error
    except Exception as error:  # PIL's plugins raise many kinds on damaged headers
        raise ImageError(f"not a readable image ({type(error).__name__})") from error
    if image.size[0] * image.size[1] > max_pixels:
        raise ImageError(f"{image.size[0]}x{image.size[1]} is more than data.max_pixels={max_pixels}")
    return image
