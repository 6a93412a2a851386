"""Tables as data, and their output as HTML, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

from detlab.report.escapes import for_csv, for_html, for_latex, for_markdown, markdown_code

DASH = "\N{EN DASH}"  # shown for a missing number


@dataclass
class Cell:
    """Text of a cell, with a sort key if it is not sorted by its text."""

    text: str
    sort: float | None = None
    kind: str = ""  # CSS class


@dataclass
class Table:
    """A table with columns and rows."""

    name: str  # for file names and HTML ids
    title: str
    heads: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)  # {row: "best" or "bad"}
    words: set[int] = field(default_factory=set)  # columns of text, aligned left


def number(value: float | None, digits: int = 3, sign: bool = False) -> Cell:
    """A number, or a dash for None."""
    return Cell(DASH) if value is None else Cell(f"{value:{'+' if sign else ''}.{digits}f}", value)


def as_html(table: Table) -> str:
    """A sortable HTML table."""
    heads = "".join(
        f'<th scope="col"{_left(table, i)}><button type="button">{for_html(head)}</button></th>'
        for i, head in enumerate(table.heads)
    )
    rows = []
    for r, row in enumerate(table.rows):
        cells = []
        for i, cell in enumerate(row):
            kinds = " ".join(x for x in ("word" if i in table.words else "", cell.kind) if x)
            text = f"<code>{for_html(cell.text)}</code>" if cell.kind == "code" else for_html(cell.text)
            sort = "" if cell.sort is None else f' data-sort="{cell.sort:.9g}"'
            shown = f' class="{kinds}"' if kinds else ""
            cells.append(f"<td{shown}{sort}>{text}</td>")
        mark = f' class="{table.marks[r]}"' if r in table.marks else ""
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table class="sortable" id="{table.name}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _left(table: Table, column: int) -> str:
    return ' class="word"' if column in table.words else ""


def as_markdown(table: Table) -> str:
    """A table in GitHub's Markdown, with the best row in bold."""
    lines = [f"| {' | '.join(map(for_markdown, table.heads))} |"]
    lines.append("|" + "|".join("---" if i in table.words else "---:" for i in range(len(table.heads))) + "|")
    for r, row in enumerate(table.rows):
        texts = [markdown_code(cell.text) if cell.kind == "code" else for_markdown(cell.text) for cell in row]
        if table.marks.get(r) == "best":
            texts = [f"**{text}**" for text in texts]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """A table for spreadsheets, with unrounded numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(for_csv, table.heads))
    for row in table.rows:
        writer.writerow(
            [for_csv(c.text) if c.sort is None or "[" in c.text or "/" in c.text else f"{c.sort:.9g}" for c in row]
        )
    return out.getvalue()


def as_latex(table: Table) -> str:
    """A LaTeX table for the booktabs package."""
    shape = "".join("l" if i in table.words else "r" for i in range(len(table.heads)))
    lines = [
        f"\\begin{{tabular}}{{{shape}}}",
        "\\toprule",
        " & ".join(map(for_latex, table.heads)) + " \\\\",
        "\\midrule",
    ]
    for r, row in enumerate(table.rows):
        texts = [for_latex(cell.text) for cell in row]
        if table.marks.get(r) == "best":
            texts = [f"\\textbf{{{text}}}" for text in texts]
        lines.append(" & ".join(texts) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"
