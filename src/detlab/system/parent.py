"""End a process when its parent dies, by the parent-death signal of the Linux kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

FIRST_ENV = "DETLAB_FIRST"  # process id of rank 0, for the ranks that it starts
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def first_rank() -> int | None:
    """Process id of rank 0 if it started this process, else None."""
    text = os.environ.get(FIRST_ENV, "")
    return int(text) if text.isdigit() and int(text) != os.getpid() else None


def die_with_first_rank() -> None:
    """Let the kernel kill this rank when rank 0 dies for any reason; called first in every started rank."""
    first = first_rank()
    if first is None:
        return
    signal_at_parents_death(signal.SIGKILL)
    if os.getppid() != first:  # rank 0 died before the signal was set up
        sys.exit(f"detlab: rank 0 (process {first}) ended while this rank started.")


def signal_at_parents_death(number: int) -> None:
    """Ask the kernel for signal `number` when the parent dies, even by kill -9; 0 for none. No effect outside Linux."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, int(number))
