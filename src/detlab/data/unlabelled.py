"""Images without annotations as batches, for prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detlab.data.dataset import Collate, Sample
from detlab.data.images import MAX_PIXELS, read_image
from detlab.data.proposals.store import Boxes
from detlab.data.transforms import Resize
from detlab.tensors.structures import Batch


def batches_of_images(
    images: Iterable[str | Path | np.ndarray | Tensor],
    *,
    resize: Resize,
    collate: Collate,
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
    propose: Callable[[int, tuple[int, int]], Boxes] | None = None,
) -> Iterator[Batch]:
    """Images without annotations as batches; ids count from 0.

    Args:
        images: paths, uint8 arrays [H, W, 3] (or [H, W]), or uint8 tensors [3, H, W].
        resize, collate: as for labelled images.
        propose: (index of an image, its (height, width)) -> its proposals, px of the image as stored.

    Raises:
        ImageError: a path that is no readable image.
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


def _pixels(image: str | Path | np.ndarray | Tensor, max_pixels: int) -> Tensor:
    if isinstance(image, str | Path):
        return read_image(Path(image), max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # a copy: arrays may be read-only
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(
            f"predict() takes paths, uint8 arrays [H, W, 3] or uint8 tensors [3, H, W]; got {image.dtype} of shape "
            f"{tuple(image.shape)}."
        )
    return image.contiguous()
