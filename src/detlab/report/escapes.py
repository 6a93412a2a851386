"""Text of data in the four formats of a report: it comes out as it reads, and no format takes it for anything else.

Class, file and folder names may hold markup, formulas and commands of each; `visible` has written out what no one sees.
"""

from __future__ import annotations

import re
from html import escape

from detlab.system.printing import visible

NUMBER = re.compile(r"[+-]?\d[\d.,]*(e[+-]?\d+)?( \[[+-]?[\d.]+, [+-]?[\d.]+\])?")  # also with its interval
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # what spreadsheets begin a formula with, wide forms as well
MARKDOWN = {**{c: f"\\{c}" for c in "\\`*~[]|#!$"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}
LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: f"{{{c}}}" for c in "[]*`"},  # behind \\ the first three would be arguments; ?` is another character
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "\N{EN DASH}": "--",
    "·": "$\\cdot$",
    "\N{WORD JOINER}": "{}",  # between two minus signs, which would be one dash
}
KNOWN_TO_PDFLATEX = 0x17F  # its default characters: Latin-1 and Latin Extended-A


def for_html(text: str) -> str:
    """For the content of an element, or of an attribute in quotes."""
    return escape(visible(text))


def for_csv(text: str) -> str:
    """For a cell: what a spreadsheet would compute gets an apostrophe in front, which it shows as text."""
    words = visible(text)
    return f"'{words}" if words.lstrip()[:1] in FORMULA and words.strip() and not NUMBER.fullmatch(words) else words


def for_markdown(text: str) -> str:
    """For a paragraph, a heading, or a cell of a table. `_` within a word is no emphasis and stays."""
    words = "".join(MARKDOWN.get(c, c) for c in visible(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", words)


def markdown_code(text: str) -> str:
    """As code where that can hold it, else as text: backticks end code, and | ends a cell."""
    words = visible(text)
    return f"`{words}`" if words.strip() and not set(words) & set("`|\\") else for_markdown(words)


def for_latex(text: str) -> str:
    """For a cell of a tabular. pdflatex stops at characters that it was not told of; it gets their number instead."""
    return "".join(_in_latex(c) for c in re.sub(r"-(?=-)", "-\N{WORD JOINER}", visible(text)))


def _in_latex(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    if ord(character) <= KNOWN_TO_PDFLATEX:
        return character
    # \Umathchar is a command of XeTeX and LuaTeX, which read all of Unicode, and not of pdfTeX
    return f"\\ifdefined\\Umathchar {character}\\else U+{ord(character):04X}\\fi{{}}"
