"""What becomes of a process when the one that started it dies: the kernel tells it, where the kernel is Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

FIRST_ENV = "DETLAB_FIRST"  # process id of the first rank, for the ranks that it starts
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def first_rank() -> int | None:
    """Process id of the rank that started this one; None for one that was started otherwise."""
    text = os.environ.get(FIRST_ENV, "")
    return int(text) if text.isdigit() and int(text) != os.getpid() else None


def die_with_first_rank() -> None:
    """The first act of a started rank: from here on the kernel kills it when the first one dies, however that dies."""
    first = first_rank()
    if first is None:
        return
    signal_at_parents_death(signal.SIGKILL)
    if os.getppid() != first:  # it died before the kernel was asked
        sys.exit(f"detlab: rank 0 (process {first}) ended while this rank started.")


def signal_at_parents_death(number: int) -> None:
    """Ask the kernel for a signal when the parent dies, even by kill -9; 0 for none. Nothing happens beside Linux."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, int(number))
