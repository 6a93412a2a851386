"""Main effects of factors, averaged over the levels of the others, and interactions of two factors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detlab.report.analysis import Analysis
from detlab.report.intervals import Contrast
from detlab.report.rows import Sweep, of_a_search


class Effect(NamedTuple):
    """Effect of a factor's level against the baseline's level, with all other factors equal."""

    factor: str
    level: str
    against: str
    contrast: Contrast | None  # None: no pair of rows differs in this factor alone
    pairs: int  # number of compared pairs of rows


class Interaction(NamedTuple):
    """Difference between the effect of two changes together and the sum of their effects."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    contrast: Contrast | None


def main_effects(analysis: Analysis) -> list[Effect]:
    """Each level against the baseline's level of its factor, averaged over all pairs of rows that differ in it alone.

    Verdicts are corrected over all effects. The draws of a search are no grid: levels without such a pair are left out.
    """
    sweep, rows = analysis.sweep, _row_numbers(analysis)
    keys, named, parts = list(sweep.factors), [], []
    for f, key in enumerate(keys):
        against = sweep.base.choices.get(key, sweep.factors[key][0])
        for level in sweep.factors[key]:
            if level == against:
                continue
            others = [(i, rows.get((*p[:f], against, *p[f + 1 :]))) for p, i in rows.items() if p[f] == level]
            pairs = [{a: 1.0, b: -1.0} for a, b in others if b is not None]
            named.append((key, level, against, len(pairs)))
            parts.append(_mean(pairs))
    judged = _judge(analysis, parts)
    drawn = _drawn(sweep)
    return [Effect(k, level, b, c, n) for (k, level, b, n), c in zip(named, judged, strict=True) if n or not drawn]


def interactions(analysis: Analysis) -> list[Interaction]:
    """Interaction of each pair of levels of two factors: (both) - (one) - (other) + (neither).

    It is averaged over the levels of the other factors. Verdicts are corrected over all interactions. Those of a search
    without rows to compare are left out: it draws hundreds of levels, and they would be tens of thousands.
    """
    sweep, rows = analysis.sweep, _row_numbers(analysis)
    base, drawn = tuple(sweep.base.choices.values()), _drawn(sweep)
    named, parts = [], []
    pairs = list(itertools.combinations(range(len(base)), 2))
    there = {(f, g, place[f], place[g]) for place in rows for f, g in pairs}
    for f, g, a, b in pairs_of_changes(list(sweep.factors.values()), base):
        if drawn and (f, g, a, b) not in there:
            continue
        part = interaction(rows, base, {f: a, g: b})
        if drawn and not part:
            continue
        keys = list(sweep.factors)
        named.append(((keys[f], keys[g]), (a, b)))
        parts.append(part)
    judged = _judge(analysis, parts)
    return [Interaction(factors, levels, c) for (factors, levels), c in zip(named, judged, strict=True)]


def interaction(
    rows: Mapping[tuple[str, ...], int], base: tuple[str, ...], changes: Mapping[int, str]
) -> dict[int, float]:
    """(both) - (one) - (other) + (neither) as weights of rows, averaged over the levels of the other factors.

    Args:
        rows: {level of each factor: number of the row}.
        base: the baseline's levels.
        changes: {index of a factor: its level}, of two factors.

    Returns:
        {number of a row: weight}; empty if no four rows differ in these two factors alone.
    """
    f, g = changes
    found = []
    for place, both in rows.items():
        if any(place[i] != level for i, level in changes.items()):
            continue
        one, other = rows.get(_swap(place, {f: base[f]})), rows.get(_swap(place, {g: base[g]}))
        neither = rows.get(_swap(place, {f: base[f], g: base[g]}))
        if one is not None and other is not None and neither is not None:
            found.append({both: 1.0, one: -1.0, other: -1.0, neither: 1.0})
    return _mean(found)


def pairs_of_changes(levels: Sequence[Sequence[str]], base: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """(index of a factor, of another, level of the first, of the second), without the baseline's levels."""
    return [
        (f, g, a, b)
        for f, g in itertools.combinations(range(len(levels)), 2)
        for a, b in itertools.product(levels[f], levels[g])
        if a != base[f] and b != base[g]
    ]


def _drawn(sweep: Sweep) -> bool:
    return of_a_search([run for row in sweep.rows for run in row.runs.values()])


def _row_numbers(analysis: Analysis) -> dict[tuple[str, ...], int]:
    rows = analysis.sweep.rows
    return {tuple(row.choices.values()): i for i, row in enumerate(rows) if analysis.point(i) is not None}


def _swap(place: tuple[str, ...], changes: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(changes.get(i, level) for i, level in enumerate(place))


def _mean(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The average of contrasts {row: weight}, as one contrast; empty without any."""
    whole: dict[int, float] = {}
    for part in parts:
        for row, weight in part.items():
            whole[row] = whole.get(row, 0.0) + weight / len(parts)
    return {row: weight for row, weight in whole.items() if weight}


def _judge(analysis: Analysis, parts: Sequence[dict[int, float]]) -> list[Contrast | None]:
    judged = iter(analysis.judge([part for part in parts if part]))
    return [next(judged) if part else None for part in parts]
