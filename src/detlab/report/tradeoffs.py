"""A metric against what rows cost: one picture, a panel a cost, with intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detlab.report.analysis import Analysis
from detlab.report.answers import row_intervals
from detlab.report.contents import amount, metric_title
from detlab.report.costs import COSTS, SPENT, spent, unequal
from detlab.report.escapes import for_html
from detlab.report.figures import COLOURS, ticks

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 14, 40
LONGEST = 26  # characters of a label


class Point(NamedTuple):
    """A row."""

    name: str
    cost: float
    value: float
    low: float
    high: float


def front(points: Sequence[Point]) -> list[Point]:
    """Rows that no other beats: none is at most as costly and better, or cheaper and as good; by rising cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value)):
        if not kept or point.value > kept[-1].value:
            kept.append(point)
    return kept


def tradeoffs(analysis: Analysis) -> str:
    """A panel for each cost that rows have; "" with fewer than two rows."""
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
            panels.append(f"<figure>{_panel(points, key, metric_title(sweep.metric))}</figure>")
    return f'<div class="pair">{"".join(panels)}</div>' if panels else ""


def front_words(analysis: Analysis) -> list[str]:
    """Costs in which rows differ, as a warning."""
    keys = unequal(analysis.sweep)
    if not keys:
        return []
    told = []
    for key in keys:
        values = [v for row in analysis.sweep.rows if (v := spent(row, key))]
        told.append(f"{SPENT[key]} ({amount(key, min(values)).text} to {amount(key, max(values)).text})")
    return [f"Rows are of unequal cost, in {', '.join(told)}: read differences beside it (Cost)."]


def _panel(points: Sequence[Point], key: str, metric: str) -> str:
    best = front(points)
    x_marks = ticks(0.0, max(p.cost for p in points), 4)
    y_marks = ticks(min(p.low for p in points), max(p.high for p in points), 4)
    x1, y0, y1 = x_marks[-1], y_marks[0], y_marks[-1]

    def px(x: float) -> float:
        return LEFT + x / (x1 or 1) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_marks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_marks:
        shown = for_html(amount(key, x).text)
        parts.append(f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{shown}</text>')
    path = " ".join(f"{px(p.cost):.1f},{py(p.value):.1f}" for p in best)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>')
    parts += [_mark(p, px(p.cost), (py(p.value), py(p.low), py(p.high)), p in best, key) for p in points]
    middle = (LEFT + WIDTH - RIGHT) / 2
    title = f"{metric} against {SPENT[key]}"
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{for_html(title)}</text>')
    frame = f'class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{for_html(title)}"'
    return f"<svg {frame}>{''.join(parts)}</svg>"


def _mark(point: Point, x: float, ys: tuple[float, float, float], on_front: bool, key: str) -> str:
    y, low, high = ys
    colour = COLOURS[0] if on_front else "#8a8a8a"
    told = f"{point.name}: {point.value:.3f} [{point.low:.3f}, {point.high:.3f}], {amount(key, point.cost).text}"
    text = ""
    if on_front:
        name = point.name if len(point.name) <= LONGEST else f"{point.name[: LONGEST - 1]}…"
        end = "end" if x > WIDTH / 2 else "start"
        left = x + (-8 if end == "end" else 8)
        text = f'<text x="{left:.1f}" y="{y - 6:.1f}" text-anchor="{end}">{for_html(name)}</text>'
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" opacity="0.55"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour if on_front else "var(--paper)"}" stroke="{colour}">'
        f"<title>{for_html(told)}</title></circle>{text}"
    )
