"""Print text and tables to the terminal; names from data are never interpreted as markup or control codes.

A class may be called `[/x]`, a file `img[front].png`, and both may contain an escape sequence, a line break or half of
a surrogate pair. Markup is therefore off, and invisible characters are shown as `\\x1b` or `\\u202e`; a name of a
megabyte is shortened.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detlab.system.text import LONGEST_CELL, LONGEST_LINE, shown


class PlainConsole(Console):
    """Rich's console for untrusted text: no markup, emoji codes or escape sequences, also in tables and titles."""

    longest = LONGEST_LINE  # characters of a string

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape and shorten every string; rich passes strings in tables through this method too."""
        return super().render_str(shown(text, self.longest), **options)


def say(text: object, *, style: str | None = None, stderr: bool = False) -> None:
    """Print one line without wrapping it; `shown` shortens very long ones."""
    PlainConsole(stderr=stderr).print(str(text), style=style, soft_wrap=True)


def show(table: Table, width: int | None = None) -> None:
    """Print a table, at least `width` characters wide if that is given."""
    console = PlainConsole()
    if width is not None and console.width < width:
        console = PlainConsole(width=width)
    console.longest = LONGEST_CELL
    console.print(table)
