"""Text of any origin on one line: invisible characters and control codes are escaped.

No more than Python is needed here, so that `detlab benchmark` runs where only torch, torchvision and Lightning are.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: controls, lone surrogates, line and paragraph separators
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change writing direction
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object) -> str:
    """One line of text in which invisible characters and terminal control codes are escaped."""
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(_written(c) if c in TURNING or unicodedata.category(c) in UNSEEN else c for c in words)


def write_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output; a reader that stops, such as `head`, ends the printing and is no mistake."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at its end


def complain(error: object) -> None:
    """Print an error as one line on standard error: `detlab: ...`."""
    print(f"detlab: {visible(error)}", file=sys.stderr, flush=True)


def _written(character: str) -> str:
    code = ord(character)
    return NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def duration(seconds: float | None) -> str:
    """A duration as text; "" for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
