"""A data loader that says when one of its workers ends, wherever in a batch that happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch.utils.data import DataLoader

# A worker hands the storage of a batch over a socket; where it has ended, reading the batch ends with one of these.
UNREADABLE = (ConnectionError, EOFError, FileNotFoundError)
RAISED_BY_WORKER = "Caught "  # begins the messages of errors that a worker itself raised and handed over


class Loader(DataLoader[Any]):
    """A `DataLoader` that raises RuntimeError, naming the worker, also when a worker ends while its batch is read."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return Batches(batches) if self.num_workers else batches


class Batches:
    """The iterator of a `Loader` with workers."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Batches:
        return self

    def __len__(self) -> int:
        return len(cast("Any", self.batches))

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except UNREADABLE as error:
            if str(error).startswith(RAISED_BY_WORKER):
                raise
            raise RuntimeError(
                "A DataLoader worker exited unexpectedly while its batch was read "
                f"({type(error).__name__}: {error}); a worker that the system ends has often run out of memory: "
                "fewer data.num_workers need less"
            ) from error
