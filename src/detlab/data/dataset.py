"""Samples of one split: read, augment, resize. They do not depend on the number of workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from detlab.data.formats.source import Source
from detlab.data.proposals.store import Boxes
from detlab.data.records import Record
from detlab.data.transforms import Resize, as_sample
from detlab.errors import DataError
from detlab.tensors.structures import PADDING, Batch, Proposals, Targets


class Sample(NamedTuple):
    """One image ready for a batch; boxes in its own pixels."""

    image: Tensor  # [3, h, w] uint8
    original_size: tuple[int, int]  # (height, width) of the image as stored
    id: int
    boxes: Tensor  # [n, 4] float32
    labels: Tensor  # [n] int64
    area: Tensor  # [n] float32, px^2 of the resized image
    crowd: Tensor  # [n] bool
    difficult: Tensor  # [n] bool
    proposals: Tensor | None = None  # [r, 4] float32, where the family needs them
    proposal_scores: Tensor | None = None  # [r] float32


class DetectionDataset(Dataset[Sample]):
    """Records as samples.

    Args:
        records: the split.
        source: reads the images.
        resize: to the size of training.
        augment: torchvision v2 transform on samples, or None.
        seed: every random draw is a function of (seed, epoch, image id).
        min_box_size: px of the resized image; smaller boxes are dropped.
        cache: keep resized images in memory; augmentation then works on the resized image.
        proposals: gives a record's proposals, px of the image as stored; those smaller than min_box_size after
            resizing are dropped.
    """

    def __init__(
        self,
        records: Sequence[Record],
        source: Source,
        resize: Resize,
        *,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        seed: int = 0,
        min_box_size: float = 1.0,
        cache: bool = False,
        proposals: Callable[[Record], Boxes] | None = None,
    ) -> None:
        self.records, self.source, self.resize, self.proposals = records, source, resize, proposals
        self.augment, self.seed, self.min_box_size, self.cache = augment, seed, min_box_size, cache
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: running workers see changes
        self._images: dict[int, Tensor] = {}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that random draws depend on."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        item = self.records[index]
        sample = as_sample(self._image(index), *self._annotations(item, index), *self._proposals(item, index))
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                # torch.manual_seed would also seed the GPUs, which costs more than a flip.
                torch.default_generator.manual_seed(_seed(self.seed, int(self.epoch), item.id))
                sample = self.augment(sample)
        sample = self.resize.sample(sample)
        boxes = sample["boxes"].as_subclass(Tensor)
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = self._large(boxes)
        proposals, scores = None, None
        if self.proposals is not None:
            proposals = sample["proposals"].as_subclass(Tensor)
            rows = self._large(proposals)
            proposals, scores = proposals[rows], sample["proposal_scores"][rows]
        return Sample(
            image=sample["image"].as_subclass(Tensor),
            original_size=item.size,
            id=item.id,
            boxes=boxes[keep],
            labels=sample["labels"][keep],
            area=sides.prod(1)[keep],
            crowd=sample["crowd"][keep],
            difficult=sample["difficult"][keep],
            proposals=proposals,
            proposal_scores=scores,
        )

    def _large(self, boxes: Tensor) -> Tensor:
        """[n] bool: boxes whose sides are at least min_box_size."""
        return (boxes[:, 2:] - boxes[:, :2] >= self.min_box_size).all(dim=1)

    def _image(self, index: int) -> Tensor:
        if index in self._images:
            return self._images[index]
        image = self.source.image(self.records[index])
        if self.cache:
            image = self._images[index] = self.resize.image(image)
        return image

    def _annotations(self, item: Record, index: int) -> tuple[Tensor, ...]:
        return (
            self._in_image(torch.as_tensor(item.boxes, dtype=torch.float32), item, index),
            torch.as_tensor(item.labels),
            torch.as_tensor(item.area, dtype=torch.float32),
            torch.as_tensor(item.crowd),
            torch.as_tensor(item.difficult),
        )

    def _proposals(self, item: Record, index: int) -> tuple[Tensor, ...]:
        if self.proposals is None:
            return ()
        boxes, scores = self.proposals(item)
        return self._in_image(torch.from_numpy(boxes), item, index), torch.from_numpy(scores)

    def _in_image(self, boxes: Tensor, item: Record, index: int) -> Tensor:
        """Boxes [n, 4] in px of the image as stored -> px of the image that `_image` gave."""
        if not self.cache:
            return boxes
        height, width = self._images[index].shape[-2:]
        return boxes * torch.tensor([width / item.size[1], height / item.size[0]] * 2)


class Collate:
    """Pads samples into one `Batch`.

    Args:
        divisor: canvas sides are rounded up to multiples of it.
        canvas: fixed (height, width), or None for the largest image of the batch.
        most: px of the largest canvas that `check` allows.
    """

    def __init__(self, *, divisor: int = 32, canvas: tuple[int, int] | None = None, most: float = math.inf) -> None:
        self.divisor, self.canvas, self.most = divisor, canvas, most

    def check(self, sizes: Iterable[Sequence[int]]) -> None:
        """Refuse images, resized to these (height, width), that a fixed canvas cannot hold, and too large canvases.

        Raises:
            DataError: names the first.
        """
        height, width = self.canvas or (math.inf, math.inf)
        for size in sizes:
            if size[0] > height or size[1] > width:
                raise DataError(
                    f"data.canvas=[{height}, {width}] is smaller than an image of {tuple(size)}; enlarge it, or lower "
                    f"data.size or data.max_size."
                )
            rows, columns = self.canvas or size
            if rows * columns > self.most:
                raise DataError(
                    f"data.size or data.canvas makes {rows} x {columns} px of an image, more than {self.most:,} px; "
                    f"use a smaller one, or a larger data.max_pixels."
                )

    def __call__(self, samples: list[Sample]) -> Batch:
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        height, width = self.canvas or (-(-int(side) // self.divisor) * self.divisor for side in sizes.amax(0))
        self.check(sizes.tolist())
        # channels-last, as images are decoded and networks read them: whole rows are copied, not single values
        images = torch.empty(len(samples), 3, height, width, dtype=torch.uint8, memory_format=torch.channels_last)
        rows = max(1, *(len(s.labels) for s in samples)) if len(samples) > 1 else max(1, len(samples[0].labels))
        boxes = torch.zeros(len(samples), rows, 4)
        labels = torch.full((len(samples), rows), PADDING)
        area = torch.zeros(len(samples), rows)
        crowd = torch.zeros(len(samples), rows, dtype=torch.bool)
        difficult = torch.zeros(len(samples), rows, dtype=torch.bool)
        for i, s in enumerate(samples):
            n = len(s.labels)
            h, w = s.image.shape[-2:]
            images[i, :, :h, :w], images[i, :, :h, w:], images[i, :, h:] = s.image, 0, 0
            boxes[i, :n], labels[i, :n], area[i, :n] = s.boxes, s.labels, s.area
            crowd[i, :n], difficult[i, :n] = s.crowd, s.difficult
        return Batch(
            images=images,
            sizes=sizes,
            original_sizes=torch.tensor([s.original_size for s in samples]),
            ids=torch.tensor([s.id for s in samples]),
            targets=Targets(boxes, labels, area, crowd, difficult),
            proposals=_padded_proposals(samples) if samples[0].proposals is not None else None,
        )


def _padded_proposals(samples: list[Sample]) -> Proposals:
    """Proposals [B, R, 4], R the largest number of any image and at least 1; scores of padding are PADDING."""
    given = [(i, s.proposals, s.proposal_scores) for i, s in enumerate(samples)]
    rows = max([1, *(len(own) for _, own, _ in given if own is not None)])
    boxes = torch.zeros(len(samples), rows, 4)
    scores = torch.full((len(samples), rows), float(PADDING))
    for i, own, own_scores in given:
        if own is not None and own_scores is not None:
            boxes[i, : len(own)], scores[i, : len(own)] = own, own_scores
    return Proposals(boxes, scores)


def _seed(seed: int, epoch: int, id: int) -> int:
    """A 63-bit seed from three numbers."""
    return hash((seed, epoch, id)) & (2**63 - 1)
