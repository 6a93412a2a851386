"""Charts of a metric against costs: one panel per cost, with intervals and the Pareto front."""

from __future__ import annotations

from detlab.report.analysis import Analysis
from detlab.report.answers import row_intervals
from detlab.report.contents import amount, metric_title
from detlab.report.costs import COSTS, SPENT, spent, unequal
from detlab.report.scatter import Point, front, panel


def tradeoffs(analysis: Analysis) -> str:
    """One panel for each cost that is known; "" with fewer than two rows."""
    sweep, spans = analysis.sweep, row_intervals(analysis)
    different, panels = unequal(sweep), []
    for key in COSTS:
        points = []
        for row, span in zip(sweep.rows, spans, strict=True):
            cost = spent(row, key)
            if cost is None or span is None or span.value is None:
                continue
            low, high = (span.value if end is None else end for end in (span.low, span.high))
            points.append(Point(sweep.label(row), cost, span.value, low, high))
        if len(points) > 1 and key in different:
            title = f"{metric_title(sweep.metric)} against {SPENT[key]}"
            told = {
                p: f"{p.name}: {p.value:.3f} [{p.low:.3f}, {p.high:.3f}], {amount(key, p.cost).text}" for p in points
            }
            panels.append(f"<figure>{panel(points, front(points), title, told)}</figure>")
    return f'<div class="pair">{"".join(panels)}</div>' if panels else ""


def front_words(analysis: Analysis) -> list[str]:
    """A warning that names the costs in which rows differ."""
    keys = unequal(analysis.sweep)
    if not keys:
        return []
    told = []
    for key in keys:
        values = [v for row in analysis.sweep.rows if (v := spent(row, key))]
        told.append(f"{SPENT[key]} ({amount(key, min(values)).text} to {amount(key, max(values)).text})")
    return [f"Rows are of unequal cost, in {', '.join(told)}: read differences beside it (Cost)."]
