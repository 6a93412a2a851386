"""Analyse a sweep: metrics on resampled test images, and contrasts of rows with corrected verdicts.

R rows, S seeds, B resamples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detlab.report.drawn import Drawn, read_drawn
from detlab.report.intervals import Contrast, contrasts
from detlab.report.planned import Plan
from detlab.report.rounds import looks
from detlab.report.rows import Sweep
from detlab.report.runs import ReportError
from detlab.report.searches import Search
from detlab.report.spending import holm

Array = NDArray[np.float64]
LEVEL = 0.95
FLOOR = 10  # a class or size with fewer boxes gets no verdict


@dataclass
class Analysis:
    """All numbers of a report."""

    sweep: Sweep
    drawn: dict[tuple[int, int], Drawn] = field(default_factory=dict)  # {(row, seed): resampled metrics}
    precision: dict[int, np.ndarray] = field(default_factory=dict)  # row -> [101], IoU 0.5, mean over seeds
    classes: list[str] = field(default_factory=list)
    boxes: dict[str, int] = field(default_factory=dict)  # {metric of a size or class: number of its boxes}
    images: int = 0
    resamples: int = 0
    searches: Sequence[Search] = ()
    plan: Plan | None = None  # looks at the sweep, for which verdicts are corrected
    why_no_draws: str = ""  # why the main metric has no resamples, so that the images count as fixed
    _judged: dict[str, list[Contrast | None]] = field(default_factory=dict)

    def values(self, metric: str) -> Array:
        """[R, S] the metric as the runs measured it; NaN if missing."""
        sweep = self.sweep
        table = np.full((len(sweep.rows), len(sweep.seeds)), np.nan)
        for r, row in enumerate(sweep.rows):
            for seed, run in row.done.items():
                table[r, sweep.seeds.index(seed)] = run.metrics.get(metric, np.nan)
        return table

    def draws(self, metric: str) -> Array | None:
        """[R, S, B] the metric on resampled images; None if it cannot be resampled for some run."""
        values = self.values(metric)
        if not self.resamples or not np.isfinite(values).any():
            return None
        found = np.full((*values.shape, self.resamples), np.nan)
        for r, s in np.argwhere(np.isfinite(values)):
            drawn = self.drawn.get((int(r), self.sweep.seeds[s]))
            if drawn is None or metric not in drawn.values:
                return None
            found[r, s] = drawn.values[metric][1:]
        return found

    def judge(self, parts: Sequence[Mapping[int, float]], metric: str = "") -> list[Contrast]:
        """Contrasts given as {row: weight}; the verdicts are corrected over all of them, and for repeated looks."""
        metric, plan = metric or self.sweep.metric, self.plan
        if not parts:
            return []
        found = contrasts(
            self.values(metric),
            self.draws(metric),
            self._weights(parts),
            LEVEL,
            images=self.images or None,
            verdict_level=self.verdict_level(len(parts)),
            later_level=None if plan is None else lambda seeds: plan.level(seeds, len(parts), LEVEL),
        )
        if plan is None:
            return list(found)
        settled = self._settled(plan) if metric == self.sweep.metric else {}
        early = self._most_seeds() < plan.first
        base = self.sweep.baseline
        return [
            _with_verdict(
                c, "undecided" if early else next((v for r, v in settled.items() if part == beside(r, base)), "")
            )
            for c, part in zip(found, parts, strict=True)
        ]

    def _weights(self, parts: Sequence[Mapping[int, float]]) -> Array:
        weights = np.zeros((len(parts), len(self.sweep.rows)))
        for c, part in enumerate(parts):
            weights[c, list(part)] = list(part.values())
        return weights

    def verdict_level(self, comparisons: int) -> float:
        """Probability that none of the verdicts of a table is wrong: lower levels are left to the looks to come."""
        return LEVEL if self.plan is None else self.plan.level(self._most_seeds(), comparisons, LEVEL)

    def _most_seeds(self) -> int:
        return max((len(row.done) for row in self.sweep.rows), default=0)

    def _settled(self, plan: Plan) -> dict[int, str]:
        """{row: verdict beside the baseline} after all looks at the main metric, as `detlab ablate` prints them."""
        values, draws, base = self.values(self.sweep.metric), self.draws(self.sweep.metric), self.sweep.baseline
        known: list[int] = np.flatnonzero(np.isfinite(values).any(1)).tolist()
        rows = [base, *(r for r in known if r != base)]
        table = np.full((len(rows), len(plan.seeds)), np.nan)
        drawn = None if draws is None else np.full((*table.shape, draws.shape[2]), np.nan)
        for column, seed in enumerate(plan.seeds):
            if seed in self.sweep.seeds:
                place = self.sweep.seeds.index(seed)
                table[:, column] = values[rows, place]
                if drawn is not None and draws is not None:
                    drawn[:, column] = draws[rows, place]
        taken = looks(table, drawn, len(plan.seeds), LEVEL, images=self.images or None, first=plan.first)
        return dict(zip(rows[1:], taken[-1].verdicts if taken else ["undecided"] * len(rows), strict=False))

    def differences(self, metric: str = "") -> list[Contrast | None]:
        """[R] each row minus the baseline, corrected over the rows; None for the baseline and rows without runs."""
        metric = metric or self.sweep.metric
        if metric not in self._judged:
            known: list[bool] = np.asarray(np.isfinite(self.values(metric)).any(1)).tolist()
            base = self.sweep.baseline
            rows = [r for r, there in enumerate(known) if there and r != base] if known[base] else []
            found: list[Contrast | None] = [None] * len(known)
            for row, contrast in zip(rows, self.judge([beside(r, base) for r in rows], metric), strict=True):
                found[row] = contrast
            self._judged[metric] = found
        return self._judged[metric]

    def together(self, metrics: Sequence[str]) -> dict[str, list[Contrast | None]]:
        """Differences in several metrics, corrected over all rows and metrics; metrics of few boxes are left out."""
        kept = [m for m in metrics if self.boxes.get(m, FLOOR) >= FLOOR and np.isfinite(self.values(m)).any()]
        found = {metric: self.differences(metric) for metric in kept}
        there = [c for column in found.values() for c in column if c is not None]
        flat = corrected(there, self.verdict_level(max(len(there), 1)))
        again = iter(flat)
        return {metric: [None if c is None else next(again) for c in column] for metric, column in found.items()}

    def point(self, row: int, metric: str = "") -> float | None:
        """Mean over seeds of a metric as the runs measured it; None without runs."""
        values = self.sweep.rows[row].values(metric or self.sweep.metric)
        return float(values.mean()) if len(values) else None

    def best(self) -> int | None:
        """The row with the highest mean."""
        points = {i: p for i in range(len(self.sweep.rows)) if (p := self.point(i)) is not None}
        return max(points, key=lambda i: points[i]) if points else None


def beside(row: int, base: int) -> dict[int, float]:
    """Weights of a row minus the baseline."""
    return {row: 1.0, base: -1.0}


def _with_verdict(found: Contrast, verdict: str) -> Contrast:
    """A contrast of several seeds with another verdict; "" leaves it."""
    if not verdict or found.seeds < 2 or verdict == found.verdict:
        return found
    needed = None if found.seeds_needed is None else max(found.seeds_needed, found.seeds + 1)
    return replace(found, verdict=verdict, seeds_needed=needed)


def corrected(found: Sequence[Contrast], level: float = LEVEL) -> list[Contrast]:
    """The same contrasts with verdicts corrected over all of them (Holm); one-seed contrasts separately."""
    p = np.array([np.nan if c.p is None else c.p for c in found])
    several = np.array([c.seeds >= 2 for c in found], bool)
    many, _ = holm(np.where(several, p, np.nan), 1 - level)
    single, _ = holm(np.where(several, np.nan, p), 1 - level)
    judged = []
    for contrast, adjusted in zip(found, np.where(several, many, single).tolist(), strict=True):
        rejected = adjusted <= 1 - level
        if contrast.p is None:
            judged.append(contrast)
        elif contrast.seeds < 2:
            judged.append(replace(contrast, p_adjusted=adjusted, differ_here=rejected))
        else:
            verdict = ("better" if (contrast.value or 0) > 0 else "worse") if rejected else "undecided"
            judged.append(replace(contrast, p_adjusted=adjusted, verdict=verdict))
    return judged


def analyse(sweep: Sweep, resamples: int = 1000, say: Callable[[str], None] = lambda _: None) -> Analysis:
    """Resample the stored detections of all runs; all runs share the same resampled images.

    Args:
        sweep: rows and runs.
        resamples: number of resamples; 0 treats the images as fixed.
        say: called with a text about progress.
    """
    analysis = Analysis(sweep)
    runs = [(i, seed, run) for i, row in enumerate(sweep.rows) for seed, run in row.done.items()]
    why, split, begun = "", "", time.monotonic()
    for number, (i, seed, run) in enumerate(runs, start=1):
        left = (time.monotonic() - begun) / (number - 1) * (len(runs) - number + 1) if number > 1 else 0.0
        told = f", about {left:.0f} s left" if left else ""
        say(f"{number} of {len(runs)}: {sweep.label(sweep.rows[i])}, seed {seed}{told}")
        try:
            drawn = read_drawn(run.folder, list(run.metrics), resamples)
        except ReportError as error:
            why = str(error).removesuffix(".")
            continue
        if drawn is None:
            why = f"{run.folder} holds no detections.json with ground_truth.json"
            continue
        if not split:
            split, analysis.classes, analysis.images = drawn.digest, drawn.classes, len(drawn.image_ids)
        if drawn.digest != split:
            why = "the runs were tested on different images, boxes or classes"
            continue
        analysis.drawn[i, seed] = drawn
        analysis.boxes |= drawn.boxes
    analysis.resamples = resamples
    analysis.why_no_draws = why or _why_no_draws(analysis)
    if why:
        analysis.resamples = 0
    _add_precision(analysis)
    return analysis


def _why_no_draws(analysis: Analysis) -> str:
    if not analysis.drawn:
        return ""
    if not analysis.resamples:
        return "none were resampled (resamples=0)"
    metric = analysis.sweep.metric
    return "" if analysis.draws(metric) is not None else f"{metric} cannot be computed on resampled test images"


def _add_precision(analysis: Analysis) -> None:
    for i in range(len(analysis.sweep.rows)):
        curves = [drawn.precision for (row, _), drawn in analysis.drawn.items() if row == i and len(drawn.precision)]
        if curves:
            analysis.precision[i] = np.mean(curves, axis=0)
