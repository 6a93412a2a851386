"""Text of any origin on one line: invisible characters and control codes are escaped, very long text is shortened.

No more than Python is needed here, so that `detlab benchmark` runs where only torch, torchvision and Lightning are.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: controls, lone surrogates, line and paragraph separators
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change writing direction
LONGEST_WORD, LONGEST_CELL, LONGEST_LINE = 500, 1200, 4000  # characters shown; longer texts are damaged data
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
LONG_WORDS = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def visible(text: object) -> str:
    """One line of text in which invisible characters and terminal control codes are escaped."""
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(_written(c) if c in TURNING or unicodedata.category(c) in UNSEEN else c for c in words)


def shown(text: object, most: int = LONGEST_LINE) -> str:
    """`visible` text for a reader: of very long words and lines, such as a class name of a megabyte, the ends."""
    line = str(text)
    if len(line) > LONGEST_WORD:
        line = LONG_WORDS.sub(lambda word: shortened(word[0], LONGEST_WORD), line)
    return visible(shortened(line, most))


def shortened(text: str, most: int) -> str:
    """Text of at most about `most` characters: its beginning and its end, and between them how long it was."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]}...({len(text):,} characters)...{text[len(text) - most // 8 :]}"


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
    print(f"detlab: {shown(error)}", file=sys.stderr, flush=True)


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
