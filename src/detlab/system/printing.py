"""What goes to the terminal: texts and tables in which whatever comes from data is text and nothing else.

A class may be called `[/x]`, a file `img[front].png`, and either may hold an escape sequence, a line break or half of a
surrogate pair: markup is off, and what is no visible character is shown as `\\x1b` or `\\u202e`.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of surrogate pairs, separators of lines and paragraphs
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of the writing direction
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object) -> str:
    """One line of text in which characters that no one sees, and that a terminal would obey, are written out."""
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(_written(c) if c in TURNING or unicodedata.category(c) in UNSEEN else c for c in words)


class PlainConsole(Console):
    """Rich's console for text of others: no markup, no emoji codes, no escape sequences, also in tables and titles."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string passes here, those in tables too."""
        return super().render_str(visible(text), **options)


def say(text: object, *, style: str | None = None, stderr: bool = False) -> None:
    """Print one line, however long; a terminal wraps it as it likes."""
    PlainConsole(stderr=stderr).print(str(text), style=style, soft_wrap=True)


def show(table: Table, width: int | None = None) -> None:
    """Print a table, at least `width` characters wide where that is given."""
    console = PlainConsole()
    if width is not None and console.width < width:
        console = PlainConsole(width=width)
    console.print(table)


def complain(error: object) -> None:
    """Print a mistake as one line of standard error: `detlab: ...`."""
    print(f"detlab: {visible(error)}", file=sys.stderr, flush=True)


def _written(character: str) -> str:
    code = ord(character)
    return NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
