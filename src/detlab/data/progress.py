"""Progress of long work on a data set, on a terminal only, and only in a run's first process."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from lightning.pytorch.utilities import rank_zero_only

from detlab.system.text import shown

AFTER = 0.5  # seconds without a line, so that small data sets show none
EVERY = 0.2  # seconds between two changes


class Progress:
    """A line on standard error that says how far the work is, and is erased at its end.

    Args:
        title: of the work.
        total: of its parts.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = shown(title), max(1, total), 0
        self.start = time.monotonic()
        self.next = self.start + AFTER
        self.shown = False
        self.active = sys.stderr.isatty() and getattr(rank_zero_only, "rank", 0) == 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def advance(self, count: int) -> None:
        """Count parts that are done."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """Say that this many parts are done."""
        self.done = done
        now = time.monotonic()
        if not self.active or now < self.next:
            return
        self.next, self.shown = now + EVERY, True
        left = (now - self.start) * (self.total - done) / max(1, done)
        line = f"{self.title}  {done:,} of {self.total:,}  {done / self.total:.0%}  {left:.0f} s left"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
