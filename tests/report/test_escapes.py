"""A table of names that are markup, formulas and commands, opened in every format it is written in."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from detlab.report.escapes import FORMULA, for_csv
from detlab.report.tables import Cell, Table, as_csv, as_html, as_latex, as_markdown
from detlab.system.text import visible

NAMES = [
    "[0.5,1,2]",
    "*",
    "**bold**",
    "_it_ a_b",
    "[/x]",
    "img[front].png",
    "a\\\\b",
    "\\input{/etc/passwd}",
    "\\end{tabular}",
    "^",
    "~",
    "<",
    ">",
    "a & b",
    "50 %",
    "# 1",
    "$x$",
    "{",
    "}",
    "\\",
    "--",
    "---",
    "|",
    "a|b",
    "a\\|b",
    "`code`",
    "``",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;",
    "&amp;",
    "![a](http://x/y.png)",
    "[a](javascript:x)",
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    '=HYPERLINK("http://x")',
    "\t=1",
    " =1",
    "\uff1d1",
    "\r=1",
    "a\n=1",
    '"q"',
    "'",
    "a,b",
    "a;b",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x00",
    "\udcff",
    "\u202eabc",
    "\u2028",
    "\x85",
    "猫",
    "é",
    "\N{EN DASH}",
    "·",
    "-0.5",
    "1. a",
    "- a",
    "> a",
    "    a",
    "http://x",
    "+0.012 [-0.001, +0.020]",
]


def table(kind: str = "") -> Table:
    rows = [[Cell(name, kind=kind), Cell("1.5", 1.5), Cell(name, kind=kind)] for name in NAMES]
    return Table("adversary", "Adversary", [NAMES[0], "n", "<script>|`"], rows, {1: "best"}, {0, 2})


def expected() -> list[str]:
    return [visible(name) for name in NAMES]


def test_what_no_one_sees_is_written_out() -> None:
    for made in (as_html(table()), as_markdown(table()), as_csv(table()), as_latex(table())):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]", made)
        made.encode()


def test_csv_holds_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(table()))))
    assert {len(row) for row in rows} == {3}
    assert len(rows) == len(NAMES) + 1
    for row, name in zip(rows[1:], expected(), strict=True):
        assert row[0] == row[2] == for_csv(name)
        assert row[0].removeprefix("'") == name.removeprefix("'")
        number = re.fullmatch(r"[+-]?[\d.]+( \[.*\])?", row[0])
        assert number or not row[0].strip() or row[0].strip()[0] not in FORMULA, row[0]
        assert row[1] == "1.5"
    assert for_csv("-0.5") == "-0.5"
    assert for_csv("+0.012 [-0.001, +0.020]") == "+0.012 [-0.001, +0.020]"


class Cells(HTMLParser):
    """The texts of a table's cells, and every tag met."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.mark.parametrize("kind", ["", "code"])
def test_html_reads_as_the_names(kind: str) -> None:
    cells = Cells()
    cells.feed(as_html(table(kind)))
    assert cells.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td", "button", "code"}
    assert [row[0] for row in cells.rows[1:]] == expected()
    assert {len(row) for row in cells.rows} == {3}


@pytest.mark.parametrize("kind", ["", "code"])
def test_markdown_reads_as_the_names(kind: str) -> None:
    cells = Cells()
    cells.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(as_markdown(table(kind))))
    assert cells.tags <= {"table", "thead", "tbody", "tr", "th", "td", "strong", "code"}
    assert {len([c for c in row if c != "\n"]) for row in cells.rows} == {3}
    assert [row[0].strip() for row in cells.rows[1:]] == [name.strip() for name in expected()]
    assert [cell.strip() for cell in cells.rows[0]] == [NAMES[0], "n", "<script>|`"]


WORDS = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textless": "<", "textgreater": ">"}
WORDS |= {"textbar": "|"}
TOKEN = re.compile(
    r"\\ifdefined\\Umathchar (?P<wide>.)\\else U\+[0-9A-F]+\\fi\{\}|\\(?P<word>[a-z]+)\{\}|\\(?P<char>[&%$#_{}])"
    r"|\{(?P<group>[\[\]*`])\}|(?P<none>\{\})|(?P<dot>\$\\cdot\$)|(?P<dash>--)|(?P<plain>[^\\{}$&#^_~%\[\]*<>|`])"
)


def tex_read(cell: str) -> str:
    """What a cell of our LaTeX stands for; nothing in it may be left to TeX's own reading."""
    out, at = "", 0
    while at < len(cell):
        m = TOKEN.match(cell, at)
        assert m, cell[at:]
        word = {"none": "", "dot": "·", "dash": "\N{EN DASH}"}
        kind = m.lastgroup or ""
        out += WORDS[m["word"]] if kind == "word" else word.get(kind, m[kind] if kind not in word else "")
        at = m.end()
    return out


def test_latex_leaves_nothing_to_tex() -> None:
    head, *lines, _, _ = as_latex(table()).splitlines()
    assert head == "\\begin{tabular}{lrl}"
    rows = [line.removesuffix(" \\\\").split(" & ") for line in lines if line.endswith("\\\\")]
    assert {len(row) for row in rows} == {3}
    found = [row[0].removeprefix("\\textbf{") for row in rows[1:]]
    found[1] = found[1].removesuffix("}")
    assert [tex_read(cell) for cell in found] == expected()
    assert not any(row[0].lstrip().startswith(("[", "*")) for row in rows)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + as_latex(table()) + "\\end{document}\n"
    (tmp_path / "a.tex").write_text(text, "utf-8")
    command = ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
