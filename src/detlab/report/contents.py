"""Tables of a report: rows with their differences, effects, classes and sizes, budgets, runs, commands."""

from __future__ import annotations

from collections.abc import Sequence

from detlab.metrics.matching import AREAS
from detlab.metrics.summary import RECALL_AT, TITLES
from detlab.report.analysis import FLOOR, Analysis
from detlab.report.costs import SPENT, spent, unequal
from detlab.report.effects import interactions, main_effects
from detlab.report.intervals import Contrast
from detlab.report.rows import command_of, paper_table
from detlab.report.runs import Run
from detlab.report.searches import search_tables
from detlab.report.tables import DASH, Cell, Table, number

MORE = (
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "map_voc07",
    "map_voc12",
    "ar_100",
    "ar_1000",
)
NAMED = 5  # rows named in a cell at most


def metric_title(metric: str) -> str:
    """A metric's name for titles, such as AP50 for map_50."""
    if metric.startswith(("ap/", "ap_voc")):
        return f"AP {metric.partition('/')[2]}"
    at = RECALL_AT.fullmatch(metric)
    title = f"AR@{at[1]}" if at else TITLES.get(metric, metric)
    return title if metric == "map" else title.replace("mAP", "AP")


def interval_cell(contrast: Contrast | None) -> Cell:
    """A difference with its interval."""
    if contrast is None or contrast.value is None:
        return Cell(DASH)
    if contrast.low is None:
        return number(contrast.value, sign=True)
    return Cell(f"{contrast.value:+.3f} [{contrast.low:+.3f}, {contrast.high:+.3f}]", contrast.value)


def short_words(contrast: Contrast) -> str:
    """The verdict in words, shortened for a table."""
    if contrast.verdict != "one seed" or contrast.differ_here is None:
        return contrast.words
    return "one seed; these two runs " + ("differ" if contrast.differ_here else "are not distinguishable")


def verdict_cell(contrast: Contrast | None, base: bool = False) -> Cell:
    """A difference's verdict."""
    if base:
        return Cell("baseline", kind="same")
    if contrast is None:
        return Cell(DASH)
    return Cell(short_words(contrast), kind=contrast.verdict if contrast.decided else "same")


def deciding_cells(contrast: Contrast | None) -> list[Cell]:
    """Cells: seeds or images that would decide a difference, and the smallest difference that could be found."""
    if contrast is None or contrast.value is None:
        return [Cell(DASH), Cell(DASH)]
    return [Cell(contrast.deciding or DASH, contrast.seeds_needed), number(contrast.detectable)]


def main_table(analysis: Analysis) -> Table:
    """One line per row: mean and spread over seeds, difference to the baseline, other metrics, costs that differ."""
    sweep = analysis.sweep
    names, costs = sweep.names, unequal(sweep)
    more = [key for key in MORE if key != sweep.metric and any(len(row.values(key)) for row in sweep.rows)]
    heads = [names[key] for key in sweep.factors] or ["runs"]
    table = Table("results", "Results", [*heads, "runs", metric_title(sweep.metric), "spread", "difference [95 %]"])
    table.heads += ["verdict", "would decide", "finds from"]
    source, printed = paper_table(sweep)
    table.heads += [source] if printed else []
    table.heads += [*map(metric_title, more), *(SPENT[key] for key in costs)]
    table.words = {*range(len(heads)), len(heads) + 4, len(heads) + 5}
    best, differences = analysis.best(), analysis.differences()
    for i, row in enumerate(sweep.rows):
        values, difference = row.values(sweep.metric), differences[i]
        cells = [Cell(level) for level in row.choices.values()] or [Cell("all")]
        cells.append(Cell(f"{len(values)}/{len(sweep.seeds)}", len(values)))
        cells += [number(analysis.point(i)), number(float(values.std(ddof=1)) if len(values) > 1 else None)]
        cells += [interval_cell(difference), verdict_cell(difference, i == sweep.baseline), *deciding_cells(difference)]
        cells += [number(printed.get(i), digits=1)] if printed else []
        cells += [number(analysis.point(i, key)) for key in more]
        table.rows.append(cells + [amount(key, spent(row, key)) for key in costs])
        if i == best:
            table.marks[i] = "best"
        elif not len(values):
            table.marks[i] = "bad"
    return table


def effect_table(analysis: Analysis) -> Table:
    """Table of the main effects."""
    table = Table("effects", "Main effects", ["factor", "level", "beside", "effect [95 %]", "verdict", "would decide"])
    table.heads += ["finds from", "pairs of rows"]
    table.words = {0, 1, 2, 4, 5}
    names = analysis.sweep.names
    for effect in main_effects(analysis):
        cells = [Cell(names[effect.factor]), Cell(effect.level), Cell(effect.against)]
        cells += [interval_cell(effect.contrast), verdict_cell(effect.contrast), *deciding_cells(effect.contrast)]
        table.rows.append([*cells, Cell(str(effect.pairs), effect.pairs)])
    return table


def interaction_table(analysis: Analysis) -> Table:
    """Table of the interactions of two factors."""
    heads = ["change", "and change", "beyond their sum [95 %]", "verdict", "would decide", "finds from"]
    table = Table("interactions", "Interactions of pairs", heads, words={0, 1, 3, 4})
    names = analysis.sweep.names
    for found in interactions(analysis):
        changes = [f"{names[key]} {level}" for key, level in zip(found.factors, found.levels, strict=True)]
        kinds = {"better": "more than the sum", "worse": "less than the sum"}
        verdict = verdict_cell(found.contrast)
        verdict.text = kinds.get(verdict.text, verdict.text)
        cells = [*map(Cell, changes), interval_cell(found.contrast), verdict, *deciding_cells(found.contrast)]
        table.rows.append(cells)
    return table


def budget_table(analysis: Analysis) -> Table:
    """Table of each row's budget."""
    sweep = analysis.sweep
    keys = [key for key in SPENT if any(spent(row, key) is not None for row in sweep.rows)]
    table = Table("budget", "Budget", ["row", *(SPENT[key] for key in keys)], words={0})
    for i, row in enumerate(sweep.rows):
        table.rows.append([Cell(sweep.label(row)), *(amount(key, spent(row, key)) for key in keys)])
        if not row.done:
            table.marks[i] = "bad"
    return table if keys else Table("budget", "Budget", [])


def amount(key: str, value: float | None) -> Cell:
    """An amount of a budget with its unit."""
    if value is None:
        return Cell(DASH)
    if key in ("parameters", "flops"):
        for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if value >= factor:
                return Cell(f"{value / factor:.2f} {unit}", value)
    return Cell(f"{value:.3g}" if value < 1000 else f"{value:,.0f}", value)


def class_table(analysis: Analysis) -> Table:
    """Rows better or worse than the baseline, by box size and class; verdicts are corrected over the whole table."""
    sweep = analysis.sweep
    sizes = [f"{kind}{end}" for kind in ("map", "ar") for end in AREAS if end and f"{kind}{end}" in analysis.boxes]
    metrics = [*sizes, *(f"ap/{name}" for name in analysis.classes)]
    found = analysis.together(metrics)
    heads = ["boxes of", "boxes", "baseline", "better", "worse", "undecided"]
    table = Table("classes", "By size and by class", heads, words={0, 3, 4, 5})
    for metric in metrics:
        base = analysis.point(sweep.baseline, metric)
        name = metric.partition("/")[2] or metric.partition("_")[2]
        count = analysis.boxes.get(metric, 0)
        cells = [Cell(name), Cell(f"{count:,}", count), number(base)]
        if metric not in found:
            few = f"no verdict: fewer than {FLOOR} boxes" if count < FLOOR else DASH
            table.rows.append([*cells, Cell(DASH), Cell(DASH), Cell(few, kind="same")])
            continue
        column = {i: c for i, c in enumerate(found[metric]) if c is not None}
        for verdict in ("better", "worse"):
            cells.append(_named(analysis, {i: c for i, c in column.items() if c.verdict == verdict}, verdict))
        table.rows.append([*cells, _open(list(column.values()))])
    return table if any(metric in found for metric in metrics) and len(sweep.rows) > 1 else Table("classes", "", [])


def _named(analysis: Analysis, rows: dict[int, Contrast], kind: str) -> Cell:
    """Rows with their differences, largest first."""
    order = sorted(rows, key=lambda i: -abs(rows[i].value or 0))
    labels = [f"{analysis.sweep.label(analysis.sweep.rows[i])} ({rows[i].value:+.3f})" for i in order]
    more = [f"and {len(labels) - NAMED} more"] if len(labels) > NAMED else []
    return Cell("; ".join(labels[:NAMED] + more) or DASH, len(labels), kind=f"wide {kind}" if labels else "")


def _open(column: Sequence[Contrast]) -> Cell:
    single = [c for c in column if c.verdict == "one seed"]
    undecided = sum(c.verdict == "undecided" for c in column)
    if not single:
        return Cell(f"{undecided} of {len(column)}", undecided, kind="same")
    return Cell(f"{undecided + len(single)} of {len(column)}, {len(single)} with one seed", undecided, kind="same")


def cell_table(analysis: Analysis) -> Table:
    """Table of all runs, including missing and failed ones."""
    sweep = analysis.sweep
    table = Table("runs", "Every run", ["row", "seed", "state", "metric", "folder or reason"], words={0, 2, 4})
    for row in sweep.rows:
        for seed in sweep.seeds:
            run = row.runs.get(seed)
            value = run.metrics.get(sweep.metric) if run is not None and run.done else None
            cells = [Cell(sweep.label(row)), Cell(str(seed), seed), Cell("missing" if run is None else run.state)]
            if value is None:
                table.marks[len(table.rows)] = "bad"
            table.rows.append([*cells, number(value), Cell(_where(run), kind="wide")])
    return table


def _where(run: Run | None) -> str:
    if run is None:
        return "not run"
    return str(run.folder) if run.done else f"{run.reason or 'no result'} ({run.folder})"


def command_table(analysis: Analysis) -> Table:
    """Table of the command of each row."""
    table = Table("commands", "Commands", ["row", "command"], words={0, 1})
    sweep = analysis.sweep
    table.rows = [[Cell(sweep.label(row)), Cell(command_of(row), kind="code")] for row in sweep.rows]
    return table


def all_tables(analysis: Analysis) -> Sequence[Table]:
    """All tables that have rows."""
    made = [main_table(analysis)]
    if len(analysis.sweep.factors) > 1:  # with one factor, the main table shows the effects already
        made += [effect_table(analysis), interaction_table(analysis)]
    made += search_tables(analysis.searches)
    made += [class_table(analysis), budget_table(analysis), cell_table(analysis), command_table(analysis)]
    return [table for table in made if table.rows]
