"""What the numbers of a sweep say: tables of resampled metrics, differences, main effects and interactions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from detlab.report.bootstrap import Interval, contrast, draw_weights, resampled_ap
from detlab.report.detections import SIZES, Judged, Truth, precision_at, read_judged
from detlab.report.rows import Row, Sweep


class Effect(NamedTuple):
    """What a level of a factor does beside the factor's first level, the other factors being equal."""

    factor: str
    level: str
    against: str
    interval: Interval | None
    pairs: int  # of rows compared


class Interaction(NamedTuple):
    """How much two changes together differ from the sum of both."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    interval: Interval | None


@dataclass
class Analysis:
    """Everything a report says in numbers."""

    sweep: Sweep
    size_tables: dict[str, dict[tuple[int, int], np.ndarray]] = field(  # metric -> (row, seed) -> [B + 1]
        default_factory=lambda: {metric: {} for metric in SIZES}
    )
    class_tables: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)  # -> [B + 1, K]
    precision: dict[int, np.ndarray] = field(default_factory=dict)  # row -> [101], IoU 0.5, mean over seeds
    classes: list[str] = field(default_factory=list)
    images: int = 0
    resamples: int = 0
    why_no_interval: str = ""

    @property
    def tables(self) -> dict[tuple[int, int], np.ndarray]:
        """The metric itself, over all sizes."""
        return self.size_tables["map"]

    def common_seeds(self, rows: list[int]) -> list[int]:
        """Seeds for which all these rows have a result."""
        sets = [{s for r, s in self.tables if r == row} for row in rows]
        return sorted(set.intersection(*sets)) if sets else []

    def contrast(self, parts: dict[int, float]) -> Interval | None:
        """A weighted sum of rows with its interval; None without one."""
        seeds = self.common_seeds(list(parts))
        return contrast(self.tables, parts, seeds) if self.resamples else None

    def difference(self, row: int) -> Interval | None:
        """A row beside the baseline."""
        return None if row == self.sweep.baseline else self.contrast({row: 1.0, self.sweep.baseline: -1.0})

    def class_difference(self, row: int, k: int) -> Interval | None:
        """As `difference`, of one class."""
        base = self.sweep.baseline
        seeds = self.common_seeds([row, base])
        if row == base or not self.resamples or not seeds:
            return None
        tables = {(r, s): self.class_tables[r, s][:, k] for r in (row, base) for s in seeds}
        return contrast(tables, {row: 1.0, base: -1.0}, seeds)

    def size_difference(self, row: int, metric: str) -> Interval | None:
        """As `difference`, of AP over boxes of one size."""
        base, tables = self.sweep.baseline, self.size_tables[metric]
        seeds = [s for s in self.common_seeds([row, base]) if not np.isnan(tables[row, s][0] + tables[base, s][0])]
        return None if row == base or not self.resamples else contrast(tables, {row: 1.0, base: -1.0}, seeds)

    def point(self, row: int) -> float | None:
        """Mean over seeds of the metric, as the runs measured it."""
        values = self.sweep.rows[row].values(self.sweep.metric)
        return float(values.mean()) if len(values) else None

    def best(self) -> int | None:
        """The row with the highest mean."""
        points = {i: p for i in range(len(self.sweep.rows)) if (p := self.point(i)) is not None}
        return max(points, key=lambda i: points[i]) if points else None


def analyse(sweep: Sweep, resamples: int = 1000, say: Callable[[str], None] = lambda _: None) -> Analysis:
    """Resample the stored detections of all runs; the same resampled images serve all.

    Args:
        resamples: 0 leaves intervals out.
        say: told of progress.
    """
    analysis = Analysis(sweep)
    if sweep.metric != "map":
        analysis.why_no_interval = f"intervals are made for map, not for {sweep.metric}"
    weights: np.ndarray | None = None  # of the first run's images
    ids: np.ndarray | None = None
    for i, row in enumerate(sweep.rows):
        curves = []
        for seed, run in row.done.items():
            say(f"{sweep.label(row)}, seed {seed}")
            stored = read_judged(run.folder, tuple(SIZES))
            if stored is None:
                analysis.why_no_interval = f"{run.folder} holds no detections.json with ground_truth.json"
                continue
            truth, judged = stored
            if ids is None or weights is None:
                ids, analysis.classes, analysis.images = truth.image_ids, truth.classes, len(truth.image_ids)
                weights = draw_weights(len(ids), resamples)
            if not np.array_equal(ids, truth.image_ids) or truth.classes != analysis.classes:
                analysis.why_no_interval = "the runs were tested on different images or classes"
                continue
            curves.append(precision_at(judged["map"], truth))
            _note(analysis, (i, seed), judged, truth, weights)
        if curves:
            analysis.precision[i] = np.mean(curves, axis=0)
    analysis.resamples = 0 if analysis.why_no_interval else resamples
    if not analysis.resamples and not analysis.why_no_interval:
        analysis.why_no_interval = "none were asked for (resamples=0)"
    return analysis


def _note(
    analysis: Analysis, key: tuple[int, int], judged: dict[str, Judged], truth: Truth, weights: np.ndarray
) -> None:
    for metric, verdicts in judged.items():
        ap = resampled_ap(verdicts, truth, weights)
        if metric == "map":
            analysis.class_tables[key] = ap
        count = (~np.isnan(ap)).sum(1)  # classes that have a box of the size in the resample
        mean = np.nansum(ap, axis=1) / np.maximum(count, 1)
        analysis.size_tables[metric][key] = mean if metric == "map" else np.where(count > 0, mean, np.nan)


def _row_numbers(sweep: Sweep) -> dict[tuple[str, ...], int]:
    return {tuple(row.choices.values()): i for i, row in enumerate(sweep.rows) if row.done}


def main_effects(analysis: Analysis) -> list[Effect]:
    """Each level beside the baseline's level of its factor, averaged over all pairs of rows that differ in it alone."""
    sweep, rows = analysis.sweep, _row_numbers(analysis.sweep)
    keys, found = list(sweep.factors), []
    for f, key in enumerate(keys):
        against = sweep.base.choices.get(key, sweep.factors[key][0])
        for level in sweep.factors[key]:
            if level == against:
                continue
            others = [(i, rows.get((*p[:f], against, *p[f + 1 :]))) for p, i in rows.items() if p[f] == level]
            parts = [{a: 1.0, b: -1.0} for a, b in others if b is not None]
            found.append(Effect(key, level, against, _mean_contrast(analysis, parts), len(parts)))
    return found


def interactions(analysis: Analysis) -> list[Interaction]:
    """For each pair of factors and of their levels: (both) - (one) - (other) + (neither), averaged over the rest."""
    sweep, rows = analysis.sweep, _row_numbers(analysis.sweep)
    keys, found = list(sweep.factors), []
    base = tuple(sweep.base.choices.values())
    for f, g in itertools.combinations(range(len(keys)), 2):
        for a, b in itertools.product(sweep.factors[keys[f]], sweep.factors[keys[g]]):
            if a == base[f] or b == base[g]:
                continue
            parts = []
            for place, both in rows.items():
                if (place[f], place[g]) != (a, b):
                    continue
                one, other = rows.get(_swap(place, {f: base[f]})), rows.get(_swap(place, {g: base[g]}))
                neither = rows.get(_swap(place, {f: base[f], g: base[g]}))
                if one is not None and other is not None and neither is not None:
                    parts.append({both: 1.0, one: -1.0, other: -1.0, neither: 1.0})
            found.append(Interaction((keys[f], keys[g]), (a, b), _mean_contrast(analysis, parts)))
    return found


def _swap(place: tuple[str, ...], changes: dict[int, str]) -> tuple[str, ...]:
    return tuple(changes.get(i, level) for i, level in enumerate(place))


def _mean_contrast(analysis: Analysis, parts: list[dict[int, float]]) -> Interval | None:
    """The average of contrasts, as one."""
    if not parts:
        return None
    whole: dict[int, float] = {}
    for part in parts:
        for row, weight in part.items():
            whole[row] = whole.get(row, 0.0) + weight / len(parts)
    return analysis.contrast({row: weight for row, weight in whole.items() if weight})


SPENT = {  # budget.json's key -> title; the report warns where those of FAIR differ
    "epochs": "epochs",
    "images_seen": "images seen",
    "batch": "batch",
    "lr": "learning rate",
    "hours": "device hours",
    "parameters": "parameters",
    "flops": "FLOPs per image",
    "latency_ms": "latency with NMS, ms",
}
FAIR = ("batch", "lr", "images_seen")


def spent(row: Row, key: str) -> float | None:
    """Mean over a row's runs of what they spent."""
    values = [run.budget[key] for run in row.done.values() if isinstance(run.budget.get(key), int | float)]
    return float(np.mean(values)) if values else None


def unfair(sweep: Sweep) -> list[str]:
    """Sentences about what differs between rows and is not what was asked."""
    found = []
    for key in FAIR:
        values = {round(v, 12) for row in sweep.rows if (v := spent(row, key)) is not None}
        if len(values) > 1:
            shown = ", ".join(f"{v:g}" for v in sorted(values))
            found.append(f"The rows differ in {SPENT[key]} ({shown}): a difference between them may come from that.")
    return found
