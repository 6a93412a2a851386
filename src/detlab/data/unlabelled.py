"""Images without annotations as batches, for prediction: files, folders and patterns, or pixels in memory."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from detlab.data.dataset import Collate, Sample
from detlab.data.images import MAX_PIXELS, ImageError, Listing, is_image, list_images, read_image
from detlab.data.pixels import to_rgb
from detlab.data.proposals.store import Boxes
from detlab.data.transforms import Resize
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch

Picture = str | Path | Image.Image | np.ndarray | Tensor  # what `batches_of_images` reads
WAYS = "give an image, a folder of images, a pattern such as 'images/*.jpg', or a list of these"


def find_images(source: str | Path | Sequence[str | Path], option: str = "source") -> Listing:
    """The images that paths, folders (with all below them) and patterns name, each once, and files that are none.

    Raises:
        ConfigError: a path does not exist, a folder or pattern has no image; the message names `option`.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    for entry in [source] if isinstance(source, str | Path) else source:
        if not str(entry).strip():  # an unset variable of the shell must not mean the current folder
            raise ConfigError(f"{option}= names nothing; {WAYS}.")
        path = Path(entry).expanduser()
        if path.exists() and not path.is_dir():
            images.append(path)
            continue
        found = list_images(path) if path.is_dir() else _matches(path)
        if not found.images:
            kind = "a folder without images" if path.is_dir() else "a pattern that no image matches"
            none = f"; none of its {len(found.skipped)} files is one that Pillow reads" if found.skipped else ""
            if not path.is_dir() and not glob.has_magic(str(entry)):
                raise ConfigError(f"{option}={entry} is not there; {WAYS}.")
            raise ConfigError(f"{option}={entry} is {kind}{none}; {WAYS}.")
        images += found.images
        skipped += found.skipped
    if not images:
        raise ConfigError(f"{option}={source} names no image; {WAYS}.")
    return Listing(list(dict.fromkeys(images)), list(dict.fromkeys(skipped)))


def as_pictures(images: Picture | Iterable[Picture]) -> list[Picture]:
    """One picture or several as a list: paths, folders and patterns become files, arrays of four dimensions images.

    Raises:
        ConfigError: see `find_images`.
    """
    if isinstance(images, np.ndarray | Tensor):
        entries: list[Picture] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | Path | Image.Image):
        entries = [images]
    else:
        entries = list(images)
    found: list[Picture] = []
    for entry in entries:
        found += find_images(entry, "images").images if isinstance(entry, str | Path) else [entry]
    return found


def batches_of_images(
    images: Iterable[Picture],
    *,
    resize: Resize,
    collate: Collate,
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
    propose: Callable[[int, tuple[int, int]], Boxes] | None = None,
) -> Iterator[Batch]:
    """Images without annotations as batches; ids count from 0.

    Args:
        images: paths, PIL images, uint8 RGB arrays [H, W, 3] (or greys [H, W]), or uint8 RGB tensors [3, H, W].
        resize, collate: as for labelled images.
        propose: (index of an image, its (height, width)) -> its proposals, px of the image as stored.

    Raises:
        ImageError: a path that is no readable image; the message names it.
        ValueError: an array that is not uint8 RGB.
    """
    none = torch.zeros(0)
    samples: list[Sample] = []
    for number, image in enumerate(images):
        pixels = _pixels(image, max_pixels)
        height, width = pixels.shape[-2:]
        resized = resize.image(pixels)
        proposals, scores = None, None
        if propose is not None:
            boxes, confidence = propose(number, (height, width))
            factor = torch.tensor([resized.shape[-1] / width, resized.shape[-2] / height] * 2)
            proposals, scores = torch.from_numpy(boxes) * factor, torch.from_numpy(confidence)
        samples.append(
            Sample(
                image=resized,
                original_size=(height, width),
                id=number,
                boxes=torch.zeros(0, 4),
                labels=none.long(),
                area=none,
                crowd=none.bool(),
                difficult=none.bool(),
                proposals=proposals,
                proposal_scores=scores,
            )
        )
        if len(samples) == batch_size:
            yield collate(samples)
            samples = []
    if samples:
        yield collate(samples)


def _matches(pattern: Path) -> Listing:
    """The files that match a pattern, and all below the folders that do."""
    images: list[Path] = []
    skipped: list[Path] = []
    for path in sorted(map(Path, glob.glob(str(pattern), recursive=True))):
        if path.is_dir():
            below = list_images(path)
            images += below.images
            skipped += below.skipped
        else:
            (images if is_image(path) else skipped).append(path)
    return Listing(images, skipped)


def _pixels(image: Picture, max_pixels: int) -> Tensor:
    if isinstance(image, str | Path):
        try:
            return read_image(Path(image), max_pixels=max_pixels)
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from error
    if isinstance(image, Image.Image):
        return torch.from_numpy(to_rgb(ImageOps.exif_transpose(image))).permute(2, 0, 1).contiguous()
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        image = torch.from_numpy(np.array(image)).movedim(-1, 0)  # a copy: arrays may be read-only
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
        got = (
            f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        )
        raise ValueError(
            f"predict() takes paths, PIL images, uint8 arrays [H, W, 3] or uint8 tensors [3, H, W]; got {got}."
        )
    return image.contiguous()
