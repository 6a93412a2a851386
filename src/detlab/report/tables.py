"""A report's tables, once as data, then as HTML, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from detlab.report.analysis import SPENT, Analysis, interactions, main_effects, spent
from detlab.report.bootstrap import Interval
from detlab.report.rows import command_of
from detlab.report.runs import Run

DASH = "\N{EN DASH}"  # where there is no number
SIZE_NAMES = {"map_small": "small", "map_medium": "medium", "map_large": "large"}
MORE = {
    "map_50": "AP50",
    "map_75": "AP75",
    **{k: f"AP {v}" for k, v in SIZE_NAMES.items()},
    "ar_100": "AR100",
    "ar_1000": "AR1k",
}


@dataclass
class Cell:
    """Text, and what it is sorted by where that is not the text."""

    text: str
    sort: float | None = None
    kind: str = ""  # class in HTML


@dataclass
class Table:
    """One table."""

    name: str  # of files
    title: str
    heads: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)  # row -> "best" or "bad"
    words: set[int] = field(default_factory=set)  # columns of words, set to the left


def number(value: float | None, digits: int = 3, sign: bool = False) -> Cell:
    """A number, or a dash."""
    return Cell(DASH) if value is None else Cell(f"{value:{'+' if sign else ''}.{digits}f}", value)


def interval_cell(interval: Interval | None) -> Cell:
    """A difference with its interval."""
    if interval is None:
        return Cell(DASH)
    text = f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    return Cell(text, interval.value)


def verdict_cell(interval: Interval | None, base: bool = False) -> Cell:
    """What may be said of a difference."""
    if base:
        return Cell("baseline", kind="same")
    if interval is None:
        return Cell(DASH)
    return Cell(interval.words, kind={"better": "better", "worse": "worse"}.get(interval.words, "same"))


def main_table(analysis: Analysis) -> Table:
    """Rows of swept choices: mean and spread over seeds, the difference to the baseline, other metrics."""
    sweep = analysis.sweep
    names = sweep.names
    more = [key for key in MORE if key != sweep.metric and any(len(row.values(key)) for row in sweep.rows)]
    metric = "mAP" if sweep.metric == "map" else sweep.metric
    heads = [names[key] for key in sweep.factors] or ["runs"]
    table = Table("results", "Results", [*heads, "runs", metric, "spread", "difference [95 %]", "verdict"])
    table.heads += [MORE[key] for key in more]
    table.words = {*range(len(heads)), len(heads) + 4}
    best = analysis.best()
    for i, row in enumerate(sweep.rows):
        values, difference = row.values(sweep.metric), analysis.difference(i)
        cells = [Cell(level) for level in row.choices.values()] or [Cell("all")]
        cells.append(Cell(f"{len(values)}/{len(sweep.seeds)}", len(values)))
        cells += [number(analysis.point(i)), number(float(values.std(ddof=1)) if len(values) > 1 else None)]
        cells += [interval_cell(difference), verdict_cell(difference, i == sweep.baseline)]
        for key in more:
            others = row.values(key)
            cells.append(number(float(others.mean()) if len(others) else None))
        table.rows.append(cells)
        if i == best:
            table.marks[i] = "best"
        elif not len(values):
            table.marks[i] = "bad"
    return table


def effect_table(analysis: Analysis) -> Table:
    """Main effects."""
    table = Table("effects", "Main effects", ["factor", "level", "beside", "effect [95 %]", "verdict", "pairs of rows"])
    table.words = {0, 1, 2, 4}
    names = analysis.sweep.names
    for effect in main_effects(analysis):
        cells = [Cell(names[effect.factor]), Cell(effect.level), Cell(effect.against)]
        cells += [interval_cell(effect.interval), verdict_cell(effect.interval), Cell(str(effect.pairs), effect.pairs)]
        table.rows.append(cells)
    return table


def interaction_table(analysis: Analysis) -> Table:
    """Interactions of pairs."""
    table = Table(
        "interactions", "Interactions of pairs", ["change", "and change", "beyond their sum [95 %]", "verdict"]
    )
    table.words = {0, 1, 3}
    names = analysis.sweep.names
    for found in interactions(analysis):
        changes = [f"{names[key]} {level}" for key, level in zip(found.factors, found.levels, strict=True)]
        kinds = {"better": "more than the sum", "worse": "less than the sum"}
        verdict = verdict_cell(found.interval)
        verdict.text = kinds.get(verdict.text, verdict.text)
        table.rows.append([*map(Cell, changes), interval_cell(found.interval), verdict])
    return table


def budget_table(analysis: Analysis) -> Table:
    """What each row spent."""
    sweep = analysis.sweep
    keys = [key for key in SPENT if any(spent(row, key) is not None for row in sweep.rows)]
    table = Table("budget", "Budget", ["row", *(SPENT[key] for key in keys)], words={0})
    for i, row in enumerate(sweep.rows):
        table.rows.append([Cell(sweep.label(row)), *(_amount(key, spent(row, key)) for key in keys)])
        if not row.done:
            table.marks[i] = "bad"
    return table if keys else Table("budget", "Budget", [])


def _amount(key: str, value: float | None) -> Cell:
    if value is None:
        return Cell(DASH)
    if key in ("parameters", "flops"):
        for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if value >= factor:
                return Cell(f"{value / factor:.2f} {unit}", value)
    return Cell(f"{value:.3g}" if value < 1000 else f"{value:,.0f}", value)


def class_table(analysis: Analysis) -> Table:
    """AP differences to the baseline by class and by size, with intervals."""
    sweep = analysis.sweep
    heads = ["row", *analysis.classes, *(f"AP {name}" for name in SIZE_NAMES.values())]
    table = Table("classes", "AP difference by class and by size", heads, words={0})
    for i, row in enumerate(sweep.rows):
        if i == sweep.baseline or not row.done:
            continue
        cells = [Cell(sweep.label(row))]
        intervals = [(f"ap/{name}", analysis.class_difference(i, k)) for k, name in enumerate(analysis.classes)]
        intervals += [(metric, analysis.size_difference(i, metric)) for metric in SIZE_NAMES]
        for metric, interval in intervals:
            cell = interval_cell(interval) if interval else number(_difference(analysis, i, metric), sign=True)
            cell.kind = verdict_cell(interval).kind
            cells.append(cell)
        table.rows.append(cells)
    return table


def _difference(analysis: Analysis, row: int, metric: str) -> float | None:
    """Mean difference of a metric over the seeds both have."""
    mine, base = analysis.sweep.rows[row].done, analysis.sweep.base.done
    pairs = [(mine[s].metrics.get(metric), base[s].metrics.get(metric)) for s in mine if s in base]
    known = [a - b for a, b in pairs if a is not None and b is not None]
    return sum(known) / len(known) if known else None


def cell_table(analysis: Analysis) -> Table:
    """Every run, and those that are missing or failed."""
    sweep = analysis.sweep
    table = Table("runs", "Every run", ["row", "seed", "state", "metric", "folder or reason"], words={0, 2, 4})
    for row in sweep.rows:
        for seed in sweep.seeds:
            run = row.runs.get(seed)
            state = "missing" if run is None else run.state
            value = run.metrics.get(sweep.metric) if run is not None and run.done else None
            cells = [
                Cell(sweep.label(row)),
                Cell(str(seed), seed),
                Cell(state),
                number(value),
                Cell(_where(run), kind="wide"),
            ]
            if value is None:
                table.marks[len(table.rows)] = "bad"
            table.rows.append(cells)
    return table


def _where(run: Run | None) -> str:
    if run is None:
        return "nobody ran it"
    return str(run.folder) if run.done else f"{run.reason or 'no result'} ({run.folder})"


def command_table(analysis: Analysis) -> Table:
    """The command of every row."""
    table = Table("commands", "Commands", ["row", "command"], words={0, 1})
    sweep = analysis.sweep
    table.rows = [[Cell(sweep.label(row)), Cell(command_of(row), kind="code")] for row in sweep.rows]
    return table


def as_html(table: Table) -> str:
    """A sortable table."""
    heads = "".join(
        f'<th scope="col"{_left(table, i)}><button type="button">{escape(head)}</button></th>'
        for i, head in enumerate(table.heads)
    )
    rows = []
    for r, row in enumerate(table.rows):
        cells = []
        for i, cell in enumerate(row):
            kinds = " ".join(x for x in ("word" if i in table.words else "", cell.kind) if x)
            text = f"<code>{escape(cell.text)}</code>" if cell.kind == "code" else escape(cell.text)
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
    """A table of GitHub's Markdown; the best row in bold."""
    lines = [f"| {' | '.join(table.heads)} |"]
    lines.append("|" + "|".join("---" if i in table.words else "---:" for i in range(len(table.heads))) + "|")
    for r, row in enumerate(table.rows):
        texts = [cell.text.replace("|", "\\|") for cell in row]
        texts = [f"`{t}`" if cell.kind == "code" else t for t, cell in zip(texts, row, strict=True)]
        if table.marks.get(r) == "best":
            texts = [f"**{text}**" for text in texts]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """A table for a spreadsheet: numbers unrounded where they are numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.heads)
    for row in table.rows:
        writer.writerow([c.text if c.sort is None or "[" in c.text or "/" in c.text else f"{c.sort:.9g}" for c in row])
    return out.getvalue()


def as_latex(table: Table) -> str:
    """A table for booktabs."""
    shape = "".join("l" if i in table.words else "r" for i in range(len(table.heads)))
    lines = [f"\\begin{{tabular}}{{{shape}}}", "\\toprule", " & ".join(map(_tex, table.heads)) + " \\\\", "\\midrule"]
    for r, row in enumerate(table.rows):
        texts = [_tex(cell.text) for cell in row]
        if table.marks.get(r) == "best":
            texts = [f"\\textbf{{{text}}}" for text in texts]
        lines.append(" & ".join(texts) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    special = {"\\": "\\textbackslash{}", DASH: "--", "·": "$\\cdot$"} | {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(c, c) for c in text)


def all_tables(analysis: Analysis) -> Sequence[Table]:
    """Those that say something."""
    made = [main_table(analysis)]
    if len(analysis.sweep.factors) > 1:  # of one factor they are the differences of the first table
        made += [effect_table(analysis), interaction_table(analysis)]
    made += [class_table(analysis), budget_table(analysis), cell_table(analysis), command_table(analysis)]
    return [table for table in made if table.rows]
