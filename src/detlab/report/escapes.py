"""Escape text from data for HTML, CSV, Markdown and LaTeX, so that it is shown literally.

Names of classes, files and folders may contain markup, formulas and commands; `visible` escapes invisible characters.
"""

from __future__ import annotations

import re
from html import escape

from detlab.system.text import visible

NUMBER = re.compile(r"[+-]?\d[\d.,]*(e[+-]?\d+)?( \[[+-]?[\d.]+, [+-]?[\d.]+\])?")  # optionally with an interval
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # first characters of a formula in spreadsheets, including full-width forms
MARKDOWN = {**{c: f"\\{c}" for c in "\\`*~[]|#!$"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}
LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: f"{{{c}}}" for c in "[]*`"},  # after \\ the first three would be arguments; ?` would be a ligature
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "\N{EN DASH}": "--",
    "·": "$\\cdot$",
    "\N{WORD JOINER}": "{}",  # separates two minus signs, which would become one dash
}
KNOWN_TO_PDFLATEX = 0x17F  # last character known by default: Latin-1 and Latin Extended-A


def for_html(text: str) -> str:
    """Escape the content of an element or of a quoted attribute."""
    return escape(visible(text))


def for_csv(text: str) -> str:
    """Escape a cell: text that a spreadsheet would compute as a formula gets an apostrophe in front."""
    words = visible(text)
    return f"'{words}" if words.lstrip()[:1] in FORMULA and words.strip() and not NUMBER.fullmatch(words) else words


def for_markdown(text: str) -> str:
    """Escape a paragraph, heading or table cell; `_` inside a word marks no emphasis and is kept."""
    words = "".join(MARKDOWN.get(c, c) for c in visible(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", words)


def markdown_code(text: str) -> str:
    """Format as code, or escape as text if it contains a backtick (ends code), | (ends a cell) or a backslash."""
    words = visible(text)
    return f"`{words}`" if words.strip() and not set(words) & set("`|\\") else for_markdown(words)


def for_latex(text: str) -> str:
    """Escape a cell of a tabular; pdflatex, which stops at unknown characters, gets their code point as text."""
    return "".join(_in_latex(c) for c in re.sub(r"-(?=-)", "-\N{WORD JOINER}", visible(text)))


def _in_latex(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    if ord(character) <= KNOWN_TO_PDFLATEX:
        return character
    # \Umathchar exists in XeTeX and LuaTeX, which read all of Unicode, but not in pdfTeX
    return f"\\ifdefined\\Umathchar {character}\\else U+{ord(character):04X}\\fi{{}}"
