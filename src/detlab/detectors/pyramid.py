"""Image pyramids for RoIs: the batch at several scales, and the scale at which each RoI is read.

SPPnet (section 4.1) and Fast R-CNN (section 5.2) read a RoI where its scaled area is nearest 224 x 224 px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.tensors.boxes import area
from detlab.tensors.structures import Batch, Proposals, Targets

CANONICAL_AREA = 224.0 * 224.0  # px^2, the size the networks were pretrained at
DIVISOR = 32  # canvas sides are multiples of it: the stride of C5


class ImagePyramid:
    """Scales of a batch, by the shorter side of each image.

    Args:
        scales: px of the shorter side.
        max_size: px, largest longer side; null for no limit.
    """

    def __init__(self, scales: Sequence[int], max_size: int | None = 2000) -> None:
        if not scales or min(scales) < 1:
            raise ValueError(f"model.test_scales={list(scales)} needs sides in px; use null for the batch's own scale.")
        self.scales, self.max_size = tuple(scales), max_size

    def factors(self, sizes: Tensor) -> Tensor:
        """[L, B]: the resize factor of each image of sizes [B, 2] at each of the L scales."""
        short, long = sizes.amin(1).float(), sizes.amax(1).float()
        factor = torch.tensor(self.scales, device=sizes.device, dtype=torch.float32)[:, None] / short[None]
        return factor if self.max_size is None else factor.minimum(self.max_size / long[None])

    def nearest(self, boxes: Tensor, sizes: Tensor) -> Tensor:
        """[B, S]: index of the scale at which each box [B, S, 4] (canvas px) has an area nearest 224 x 224."""
        scaled = area(boxes)[None] * self.factors(sizes)[..., None] ** 2  # [L, B, S]
        return (scaled - CANONICAL_AREA).abs().argmin(0)

    def views(self, batch: Batch) -> Iterator[Batch]:
        """The batch at each scale, without targets and proposals."""
        for factor in self.factors(batch.sizes):
            yield rescaled(batch._replace(targets=None, proposals=None), factor)


def rescaled(batch: Batch, factor: Tensor) -> Batch:
    """A batch with every image resized by its factor [B] and put on a new canvas; targets and proposals are scaled too.

    Images are resized one by one and without their padding, since their sizes and factors differ.
    """
    sizes = (batch.sizes * factor[:, None]).round().long().clamp(min=1)
    height, width = (-(-int(side) // DIVISOR) * DIVISOR for side in sizes.amax(0))
    images = batch.images.new_zeros(len(sizes), 3, height, width)
    for image, (h, w), (new_h, new_w), canvas in zip(
        batch.images, batch.sizes.tolist(), sizes.tolist(), images, strict=True
    ):
        canvas[:, :new_h, :new_w] = F.resize(image[:, :h, :w], [new_h, new_w], antialias=True)
    scale = view_scale(batch, sizes)
    targets, proposals = batch.targets, batch.proposals
    if targets is not None:
        whole = scale[:, 0, :2].prod(1)[:, None]
        targets = Targets(targets.boxes * scale, targets.labels, targets.area * whole, targets.crowd, targets.difficult)
    if proposals is not None:
        proposals = Proposals(proposals.boxes * scale, proposals.scores)
    return batch._replace(images=images, sizes=sizes, targets=targets, proposals=proposals)


def view_scale(batch: Batch, sizes: Tensor) -> Tensor:
    """[B, 1, 4]: factors of (x1, y1, x2, y2) from a batch to its view with image sizes [B, 2]."""
    return (sizes / batch.sizes).flip(-1).repeat(1, 2)[:, None]
