"""Read metrics.csv of a run, which another process may be writing, or a stranger has written."""

from __future__ import annotations

import csv
from contextlib import suppress
from math import isfinite
from pathlib import Path

from detlab.system.reading import ReadError, read_text

MOST_BYTES = 1 << 30
MOST_EPOCHS = 10**9


def read_lines(path: Path) -> list[str]:
    """The lines of a regular file; none if it is missing. Reading a named pipe would block."""
    try:
        return read_text(path, MOST_BYTES).content.splitlines()
    except (OSError, ReadError):
        return []


def read_history(path: Path, key: str) -> tuple[tuple[int, float], ...]:
    """(epoch, value) of a metric in a metrics.csv, in order; rows without both as finite numbers are skipped."""
    try:
        rows = list(csv.DictReader(read_lines(path)))
    except csv.Error:
        return ()
    found = []
    for row in rows:
        with suppress(KeyError, TypeError, ValueError):
            epoch, value = int(row["epoch"]), float(row[key])
            if 0 <= epoch < MOST_EPOCHS and isfinite(value):
                found.append((epoch, value))
    return tuple(found)
