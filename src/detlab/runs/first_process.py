"""Whether this process is the first of its run, which alone writes and speaks."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def first_process() -> bool:
    """Whether this process is the first one; known before the processes have met, from their environment."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
