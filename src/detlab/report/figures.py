"""Line and bar charts as inline SVG, without libraries and scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from detlab.report.escapes import for_html

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#8a6d00")  # Okabe and Ito
DASHES = ("", "6 3", "2 3", "8 3 2 3")
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
WIDE, MARGIN = 680, 30  # px; for charts with one name per row


class Line(NamedTuple):
    """A curve with an optional band."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()  # (x, low, high)


def style_of(index: int) -> tuple[str, str]:
    """Colour and dash of the index-th line; dashes distinguish lines that share a colour."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES) if index >= len(COLOURS) else 0]


def line_chart(lines: Sequence[Line], x_title: str, y_title: str, *, y_from_zero: bool = True) -> str:
    """Lines over a grid with a legend below; points show their value as a tooltip."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [y for line in lines for _, a, b in line.band for y in (a, b)]
    if not xs:
        return ""
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(0.0 if y_from_zero else min(ys), max(ys))
    if all(float(x).is_integer() for x in xs):  # such as epochs: whole numbers as ticks
        x_ticks = [t for t in x_ticks if float(t).is_integer()]
    x0, x1, y0, y1 = min(x_ticks[0], min(xs)), max(xs), y_ticks[0], max(y_ticks[-1], max(ys))

    def px(x: float) -> float:
        return LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = _frame(
        [(px(t), f"{t:g}") for t in x_ticks if t <= x1], [(py(t), f"{t:g}") for t in y_ticks], x_title, y_title
    )
    for i, line in enumerate(lines):
        colour, dash = style_of(i)
        if line.band:
            up = [f"{px(x):.1f},{py(b):.1f}" for x, _, b in line.band]
            down = [f"{px(x):.1f},{py(a):.1f}" for x, a, _ in reversed(line.band)]
            parts.append(f'<polygon points="{" ".join(up + down)}" fill="{colour}" opacity="0.13"/>')
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line.points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        if len(line.points) <= 40:
            parts += [
                f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6" fill="{colour}">'
                f"<title>{for_html(line.name)}: {y:.3f} at {x:g}</title></circle>"
                for x, y in line.points
            ]
    return _svg(parts, f"{y_title} over {x_title}") + legend([line.name for line in lines])


def interval_chart(rows: Sequence[tuple[str, float, float, float, bool]], x_title: str) -> str:
    """One line per difference: point and interval around it, with an axis at 0; hollow if the interval contains 0."""
    if not rows:
        return ""
    step, left = 26, 12 + 6.4 * max(len(name) for name, *_ in rows)
    left = min(left, 330)
    height = TOP + step * len(rows) + BOTTOM
    marks = ticks(min(0.0, *(low for _, _, low, _, _ in rows)), max(0.0, *(high for *_, high, _ in rows)))
    x0, x1 = marks[0], marks[-1]

    def px(x: float) -> float:
        return left + (x - x0) / ((x1 - x0) or 1) * (WIDE - left - MARGIN)

    parts = []
    for t in marks:
        kind, x = "axis" if t == 0 else "grid", f"{px(t):.1f}"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text x="{px(t):.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{t:+g}</text>')
    for i, (name, value, low, high, clear) in enumerate(rows):
        y = TOP + step * (i + 0.5)
        colour = (COLOURS[0] if value > 0 else COLOURS[1]) if clear else "#6b6b6b"
        shown = name if len(name) < 52 else name[:50] + "…"
        parts.append(f'<text x="{left - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{for_html(shown)}</text>')
        parts.append(
            f'<line x1="{px(low):.1f}" x2="{px(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2.4"/>'
        )
        fill = colour if clear else "var(--paper)"
        parts.append(
            f'<circle cx="{px(value):.1f}" cy="{y}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2">'
            f"<title>{for_html(name)}: {value:+.3f} [{low:+.3f}, {high:+.3f}]</title></circle>"
        )
    middle = (left + WIDE - MARGIN) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{for_html(x_title)}</text>')
    return _svg(parts, x_title, WIDE, height)


def interval_line(name: str, value: float, low: float, high: float, reach: float, *, clear: bool) -> str:
    """A small chart of one interval with an axis at 0; `reach` is the largest distance from 0 on the shared scale."""
    width, height, middle = 240, 22, 120.0
    scale = (middle - 8) / (reach or 1.0)
    colour = (COLOURS[0] if value > 0 else COLOURS[1]) if clear else "#6b6b6b"
    left, at, right = (f"{middle + x * scale:.1f}" for x in (low, value, high))
    fill = colour if clear else "var(--tint)"
    told = f"{for_html(name)}: {value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return (
        f'<svg class="span" viewBox="0 0 {width} {height}" role="img" aria-label="{told}"><title>{told}</title>'
        f'<line class="axis" x1="{middle}" x2="{middle}" y1="0" y2="{height}"/>'
        f'<line x1="{left}" x2="{right}" y1="11" y2="11" stroke="{colour}" stroke-width="3"/>'
        f'<circle cx="{at}" cy="11" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
        "</svg>"
    )


def share_chart(rows: Sequence[tuple[str, Sequence[float]]], parts_names: Sequence[str], x_title: str) -> str:
    """One horizontal stacked bar per row."""
    most = max((sum(values) for _, values in rows), default=0.0)
    if not most:
        return ""
    step, left = 28, min(12 + 6.4 * max(len(name) for name, _ in rows), 330)
    height = TOP + step * len(rows) + BOTTOM
    marks = ticks(0.0, most)
    scale = (WIDE - left - MARGIN) / max(marks[-1], most)
    out = []
    for t in marks:
        x = left + t * scale
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        out.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{t:g}</text>')
    for i, (name, values) in enumerate(rows):
        y, x = TOP + step * i + 4, left
        shown = name if len(name) < 52 else name[:50] + "…"
        out.append(f'<text x="{left - 8:.0f}" y="{y + 15}" text-anchor="end">{for_html(shown)}</text>')
        for part, value, colour in zip(parts_names, values, COLOURS, strict=False):
            title = f"<title>{for_html(name)}, {for_html(part)}: {value:.3f}</title>"
            out.append(
                f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="20" fill="{colour}">{title}</rect>'
            )
            x += value * scale
    middle = (left + WIDE - MARGIN) / 2
    out.append(f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{for_html(x_title)}</text>')
    return _svg(out, x_title, WIDE, height) + legend(parts_names, blocks=True)


def legend(names: Sequence[str], *, blocks: bool = False) -> str:
    """A legend with colour, dash and name of all lines."""
    items = []
    for i, name in enumerate(names):
        colour, dash = style_of(i)
        mark = (
            f'<rect width="14" height="12" y="1" fill="{colour}"/>'
            if blocks
            else f'<line x1="0" x2="26" y1="7" y2="7" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
        )
        width = 14 if blocks else 26
        items.append(
            f'<li><svg class="key" width="{width}" height="14" aria-hidden="true">{mark}</svg>{for_html(name)}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at or below low to at or above high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def _frame(xs: list[tuple[float, str]], ys: list[tuple[float, str]], x_title: str, y_title: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>' for y, _ in ys]
    parts += [f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{t}</text>' for y, t in ys]
    parts += [f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{t}</text>' for x, t in xs]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{for_html(x_title)}</text>')
    turned = f"translate(12 {HEIGHT / 2 - 10}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{for_html(y_title)}</text>')
    return parts


def _svg(parts: list[str], label: str, width: int = WIDTH, height: float = HEIGHT) -> str:
    inside = "".join(parts)
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{for_html(label)}">{inside}</svg>'
    )
