"""Scatter charts of values over costs, with intervals and the Pareto front, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detlab.report.escapes import for_html
from detlab.report.figures import COLOURS, ticks

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 14, 40
LONGEST = 26  # characters of a label


class Point(NamedTuple):
    """A row or trial in a chart."""

    name: str
    cost: float
    value: float
    low: float
    high: float


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front by rising cost: no other row is better at the same or lower cost, or as good and cheaper."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value)):
        if not kept or point.value > kept[-1].value:
            kept.append(point)
    return kept


def panel(points: Sequence[Point], best: Sequence[Point], title: str, told: Mapping[Point, str]) -> str:
    """A chart as SVG: values over costs (from 0), a line through the front `best`, and what each point tells."""
    x_marks = ticks(0.0, max(p.cost for p in points), 4)
    values = [p.value for p in points]
    room = 0.6 * (max(values) - min(values)) or 0.05  # longer intervals are cut at the edge of the panel
    y_marks = ticks(max(min(p.low for p in points), min(values) - room),
                    min(max(p.high for p in points), max(values) + room), 4)  # fmt: skip
    x1, y0, y1 = max(p.cost for p in points) * 1.04, y_marks[0], y_marks[-1]

    def px(x: float) -> float:
        return LEFT + x / (x1 or 1) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        y = min(max(y, y0), y1)
        return HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_marks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in [mark for mark in x_marks if mark <= x1]:
        shown = for_html(_short(x))
        parts.append(f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{shown}</text>')
    path = " ".join(f"{px(p.cost):.1f},{py(p.value):.1f}" for p in best)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>')
    parts += [_mark(px(p.cost), (py(p.value), py(p.low), py(p.high)), p in best, told[p]) for p in points]
    parts += _labels([(p.name, px(p.cost), py(p.value)) for p in (*best[-1:], *best[:-1])])
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{for_html(title)}</text>')
    frame = f'class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{for_html(title)}"'
    return f"<svg {frame}>{''.join(parts)}</svg>"


def _short(value: float) -> str:
    """A tick label with a unit prefix, such as 1.5M."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _labels(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Labels of points where there is room; the first point is always labelled."""
    made: list[str] = []
    boxes: list[tuple[float, float, float]] = []  # left, right, baseline
    for name, x, y in points:
        shown = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        width, at_end = 6.6 * len(shown), x > WIDTH / 2
        left = x - 8 - width if at_end else x + 8
        base = y - 6 if y > TOP + 10 else y + 16  # below a point at the upper edge
        if any(left < r and left + width > lo and abs(base - at) < 14 for lo, r, at in boxes):
            continue
        boxes.append((left, left + width, base))
        place = f'x="{x + (-8 if at_end else 8):.1f}" y="{base:.1f}" text-anchor="{"end" if at_end else "start"}"'
        made.append(f"<text {place}>{for_html(shown)}</text>")
    return made


def _mark(x: float, ys: tuple[float, float, float], on_front: bool, told: str) -> str:
    y, low, high = ys
    colour = COLOURS[0] if on_front else "#8a8a8a"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" opacity="0.55"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour if on_front else "var(--paper)"}" stroke="{colour}">'
        f"<title>{for_html(told)}</title></circle>"
    )
