"""Selective search (Uijlings et al., 2013) by OpenCV contrib: the proposals of R-CNN, SPPnet and Fast R-CNN."""

from __future__ import annotations

import ctypes

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.data.proposals.store import Boxes
from detlab.errors import DataError

MODES = ("fast", "quality")
RESOLUTION = 2**31  # number of different seeds for C's rand()


def check_opencv() -> None:
    """Check that OpenCV contrib is installed.

    Raises:
        DataError: it is not; the message names the extra to install.
    """
    try:
        from cv2.ximgproc import segmentation  # noqa: F401
    except (ImportError, AttributeError) as error:
        raise DataError(
            "method=selective_search needs OpenCV contrib: pip install 'detlab[selective-search]' (an OpenCV without "
            "contrib must go first); or use method=grid or method=rpn."
        ) from error


def selective_search(image: Tensor, *, mode: str, side: int | None, seed: int) -> Boxes:
    """Regions of an image, best first; scores fall from 1 by rank, since selective search gives no scores.

    Args:
        image: uint8 RGB [3, H, W].
        mode: fast (about 2,000 regions of a VOC image) or quality (about 10,000).
        side: px, longer side of the image that is searched (R-CNN's code: a width of 500); null for the image's own.
        seed: of the order within a level of the hierarchy.

    Returns:
        Boxes [n, 4] xyxy in px of the image, without duplicates, and scores [n] in (0, 1].
    """
    import cv2

    cv2.setNumThreads(1)  # there is one process per core already
    height, width = image.shape[-2:]
    scale = 1.0 if side is None else min(1.0, side / max(height, width))
    work = F.resize(image, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(work.permute(1, 2, 0).numpy()[:, :, ::-1]))  # BGR
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    _seed(seed)
    found = search.process().reshape(-1, 4).astype(np.float64)  # x, y, width, height
    _, first = np.unique(found, axis=0, return_index=True)
    found = found[np.sort(first)]
    factor = np.array([width / work.shape[-1], height / work.shape[-2]] * 2)
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1) * factor
    boxes = boxes.clip(0, [width, height, width, height])
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    scores = 1 - np.arange(len(boxes)) / max(1, len(boxes))
    return boxes[whole].astype(np.float32), scores[whole].astype(np.float32)


def _seed(seed: int) -> None:
    """Make the order of regions reproducible: OpenCV draws it from C's rand()."""
    try:
        ctypes.CDLL(None).srand(seed % RESOLUTION)
    except (TypeError, AttributeError, OSError):  # systems without a C library in the process, such as Windows
        return
