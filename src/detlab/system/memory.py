"""Memory: how much a machine has, whether an error says that there was too little, and work without the collector.

No more than Python is needed here, so errors of torch and NumPy are told by their texts.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

LACKING = re.compile(  # texts of allocations that fail, or whose number of bytes is no number that a machine can count
    r"can't allocate memory|not enough memory|out of memory|Unable to allocate|Cannot allocate memory|\bMemoryError\b"
    r"|Storage size calculation overflowed|array is too big|Maximum allowed dimension exceeded",
    re.IGNORECASE,
)
ASKED = re.compile(r"tried to allocate (\d+) bytes|allocate ([\d.]+ [KMGTPE]?iB)")


def physical_bytes() -> int | None:
    """Bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no such call or name, as on Windows
        return None


def ran_out(error: BaseException | None) -> str:
    """Words for an error, or a cause of it, that says that memory ran out: what was asked for; empty for any other."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        text = str(error)
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | ValueError) and LACKING.search(text)):
            found = ASKED.search(text)
            if found is None:
                return "memory ran out"
            asked = f"{int(found[1]) / 1e9:.1f} GB" if found[1] else found[2]
            return f"memory ran out when {asked} more were asked for"
        seen.append(error)
        error = error.__cause__
    return ""


@contextmanager
def without_collector() -> Iterator[None]:
    """Rows of annotations hold no cycles of references; looking for some takes up to a third of the time of reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
