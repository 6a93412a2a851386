"""Losses of an evaluation, averaged over its images; the number of processes does not change the result."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detlab.tensors.ranks import of_all


class BatchLosses:
    """Collects the losses of each batch and averages them at the end.

    Batches are weighted by their number of images; a batch that several processes evaluated counts once. Batches are
    summed in the order of their first image, in float64, so the result does not depend on the split over processes.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._values: list[Tensor] = []  # one [losses] per batch, kept on the device to avoid synchronising with it
        self._ids: list[Tensor] = []

    def add(self, losses: Mapping[str, Tensor], ids: Tensor) -> None:
        """Add the losses (scalars, means over the batch) of the images with these ids [B]."""
        self._names = list(losses)
        self._values.append(torch.stack([value.detach() for value in losses.values()]))
        self._ids.append(ids)

    def means(self) -> dict[str, float]:
        """The mean of every loss over the images of all processes; every process must call it."""
        batches: dict[tuple[int, ...], list[float]] = {}
        for names, part in of_all((self._names, self._own())):
            self._names = self._names or names
            batches |= dict(part)
        if not batches:
            return {}
        ordered = sorted(batches)
        values = torch.tensor([batches[ids] for ids in ordered], dtype=torch.float64)
        counts = torch.tensor([len(ids) for ids in ordered], dtype=torch.float64)
        return dict(zip(self._names, (counts @ values / counts.sum()).tolist(), strict=True))

    def _own(self) -> list[tuple[tuple[int, ...], list[float]]]:
        values = torch.stack(self._values).double().tolist() if self._values else []
        return list(zip((tuple(ids.tolist()) for ids in self._ids), values, strict=True))
