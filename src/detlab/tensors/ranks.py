"""Collective operations over the processes of a run (`torch.distributed`); all of them work in a single process too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from torch import Tensor, distributed

Value = TypeVar("Value")


def together() -> bool:
    """Whether this process is one of several."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def of_all(value: Value) -> list[Value]:
    """The value of each process, by rank; every process must call it."""
    if not together():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def own_share(count: int) -> range:
    """Indices of the pieces of work, out of `count`, that this process does."""
    return range(distributed.get_rank(), count, distributed.get_world_size()) if together() else range(count)


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes, on its device; every process must call it."""
    if not together():
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def meet(patience: timedelta | None = None) -> None:
    """Wait for the other processes; `patience` sets the group's timeout first, for this and later operations."""
    if together():
        if patience is not None:
            set_timeout(patience)
        distributed.barrier()


def set_timeout(patience: timedelta) -> None:
    """Set the timeout of collective operations in the default process group."""
    if hasattr(distributed, "set_timeout"):
        distributed.set_timeout(patience)
    else:  # torch before 2.13
        distributed.distributed_c10d._set_pg_timeout(patience)
