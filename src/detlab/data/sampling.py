"""Batch samplers: group images by aspect ratio and deal batches to processes, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler


class GroupedBatchSampler(Sampler[list[int]]):
    """Batches of images of the same orientation; a function of (seed, epoch) only.

    Each global batch of batch_size * processes images is drawn first and then dealt to the processes, so that the
    images of a step do not depend on the number of processes. A group's last batch is filled up with its first images.

    Args:
        groups: [N] group of each image (0 wide, 1 tall); all equal where grouping is off.
        batch_size: images per process.
        shuffle: False keeps the order.
        seed: of the shuffle.
        rank, world_size: this process.
    """

    def __init__(
        self,
        groups: Sequence[int],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.groups, self.batch_size, self.shuffle, self.seed = list(groups), batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.offset = 0  # batches of this epoch already used, to resume within an epoch

    @property
    def sampler(self) -> GroupedBatchSampler:
        """Itself: Lightning calls set_epoch on a batch sampler's `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch, from its first batch."""
        if epoch != self.epoch:
            self.epoch, self.offset = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Position: the epoch, and the batches of it already used."""
        return {"epoch": self.epoch, "offset": self.offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at another sampler's position."""
        self.epoch, self.offset = state["epoch"], state["offset"]

    def __len__(self) -> int:
        total = self.batch_size * self.world_size
        return sum(-(-self.groups.count(g) // total) for g in set(self.groups))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._global_batches()[self.offset :]:
            start = self.rank * self.batch_size
            yield batch[start : start + self.batch_size]

    def _global_batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        n = len(self.groups)
        order = torch.randperm(n, generator=generator).tolist() if self.shuffle else list(range(n))
        total = self.batch_size * self.world_size
        batches = []
        for group in sorted(set(self.groups)):
            members = [i for i in order if self.groups[i] == group]
            missing = -len(members) % total
            members += (members * (missing // len(members) + 1))[:missing]
            batches += [members[i : i + total] for i in range(0, len(members), total)]
        if self.shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        return batches


class EpochSampler(GroupedBatchSampler):
    """Also passes the epoch to the data set, whose augmentation depends on it.

    Args:
        dataset: has set_epoch.
        groups, options: of `GroupedBatchSampler`.
    """

    def __init__(self, dataset: Any, groups: Sequence[int], **options: Any) -> None:
        super().__init__(groups, **options)
        self.dataset = dataset

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.dataset.set_epoch(state["epoch"])


class ShardedBatchSampler(Sampler[list[int]]):
    """Every image in order; batches do not depend on the number of processes and are dealt to them in turn.

    All processes get the same number of batches: where some would get one less, the first batches are repeated.

    Args:
        count: images.
        batch_size: images of a batch.
        rank, world_size: this process.
    """

    def __init__(self, count: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.count, self.batch_size, self.rank, self.world_size = count, batch_size, rank, world_size

    def __len__(self) -> int:
        return -(-self._batches() // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        for number in range(self.rank, len(self) * self.world_size, self.world_size):
            start = number % batches * self.batch_size
            yield list(range(start, min(start + self.batch_size, self.count)))

    def _batches(self) -> int:
        return -(-self.count // self.batch_size)
