"""Batches made for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detlab.tensors.structures import Batch, Proposals, Targets

PROPOSALS = 12  # per image


def make_batch(
    boxes: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[Sequence[int]],
    side: int | tuple[int, int] = 64,
    seed: int = 0,
) -> Batch:
    """A batch of random images with the given boxes (xyxy px) and labels, and random proposals."""
    height, width = (side, side) if isinstance(side, int) else side
    rows = max((len(b) for b in boxes), default=0)
    count = len(boxes)
    padded, marks = torch.zeros(count, rows, 4), torch.full((count, rows), -1)
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if box:
            padded[i, : len(box)] = torch.tensor(box, dtype=torch.float32)
            marks[i, : len(box)] = torch.tensor(label)
    w, h = padded[..., 2] - padded[..., 0], padded[..., 3] - padded[..., 1]
    none = torch.zeros(count, rows, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[height, width]] * count)
    targets = Targets(padded, marks, w * h, none, none)
    corner = torch.rand(count, PROPOSALS, 2, generator=generator) * torch.tensor([width, height]) * 0.6
    extent = (0.1 + 0.3 * torch.rand(count, PROPOSALS, 2, generator=generator)) * torch.tensor([width, height])
    scores = torch.rand(count, PROPOSALS, generator=generator)
    scores[-1, PROPOSALS // 2 :] = -1  # the last image has half as many
    proposals = Proposals(torch.cat([corner, corner + extent], dim=2), scores)
    return Batch(images, sizes, sizes.clone(), torch.arange(1, count + 1), targets, proposals)
