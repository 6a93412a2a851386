"""One metric of a sweep's runs as arrays for `contrasts`: values, and values on resampled test images.

R rows, S seeds, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlab.report.analysis import analyse
from detlab.report.costs import mixed
from detlab.report.rows import make_sweep
from detlab.report.runs import ReportError, Run, find_runs, setting

RESAMPLES = 1000  # as many as a report draws, so that a printed verdict is the one of the page


@dataclass(frozen=True)
class Measured:
    """A metric by row and seed.

    Attributes:
        values: [R, S]; NaN without a result.
        draws: [R, S, B]; None if the metric cannot be resampled.
        images: number of test images; None if unknown.
        why_no_draws: why there are no draws, a sentence; "" if there are draws or no runs.
        mixed: sentences on rows whose seeds had different configs.
    """

    values: NDArray[np.float64]
    draws: NDArray[np.float64] | None
    images: int | None
    why_no_draws: str = ""
    mixed: tuple[str, ...] = ()


def measure(folder: Path, rows: Sequence[Mapping[str, str]], seeds: Sequence[int], metric: str) -> Measured:
    """Read the runs of a sweep's folder.

    Args:
        folder: folder of the sweep; it may not exist yet.
        rows: choices of each row, {whole key: level}.
        seeds: seeds of the columns.
        metric: key in result.json.

    Raises:
        ReportError: no run has the metric.
    """
    values = np.full((len(rows), len(seeds)), np.nan)
    runs = [run for run in _runs(folder) if run.done and run.seed in seeds]
    kept = [(row, run) for run in runs if (row := row_of(run, rows)) is not None]
    if not kept:
        return Measured(values, None, None)
    if not any(metric in run.metrics for _, run in kept):
        known = ", ".join(sorted({name for _, run in kept for name in run.metrics}))
        raise ReportError(f"answer=test/{metric} is in no result; there are {known}.")
    for row, run in kept:
        values[row, seeds.index(run.seed)] = run.metrics.get(metric, np.nan)
    sweep = make_sweep([run for _, run in kept], metric=metric)
    analysis, differ = analyse(sweep, RESAMPLES), tuple(mixed(sweep))
    drawn = analysis.draws(metric)
    if drawn is None:
        why = f"intervals are over seeds alone: {analysis.why_no_draws or f'{metric} cannot be resampled'}"
        return Measured(values, None, analysis.images or None, why, differ)
    draws = np.full((*values.shape, RESAMPLES), np.nan)
    for place, each in enumerate(sweep.rows):
        for seed, run in each.done.items():
            row = row_of(run, rows)
            if row is not None:
                draws[row, seeds.index(seed)] = drawn[place, sweep.seeds.index(seed)]
    return Measured(values, draws, analysis.images, mixed=differ)


def _runs(folder: Path) -> list[Run]:
    if not folder.is_dir() or not any(folder.glob("*/job.json")):
        return []
    return find_runs([folder])


def row_of(run: Run, rows: Sequence[Mapping[str, str]]) -> int | None:
    """The row with the choices of a run; None if no row has them."""
    return next((i for i, row in enumerate(rows) if all(setting(run, k) == v for k, v in row.items())), None)
