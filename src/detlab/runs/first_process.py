"""Rank 0 of a run: the only process that writes files and prints."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def first_process() -> bool:
    """Whether this process has rank 0, read from the environment, so also before the process group exists."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
