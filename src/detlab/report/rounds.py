"""Sequential analysis of a growing sweep: verdicts after each added seed (a look), and the rows that need another seed.

Each row is compared with the first, the baseline. A look is taken after every seed from the second on, or from a
later one that was named in advance. A comparison that is decided at a look stays decided, and its row needs no more
runs. detlab.report.spending computes the level of each look. All looks follow from the runs there are, so a sweep that
was interrupted goes on as if it had not been.

R rows, S seeds, B resamples, C = R - 1 comparisons, of row c + 1 with row 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from detlab.report.intervals import Contrast, contrasts
from detlab.report.spending import look_level, open_comparisons, settle

FIRST = 2  # seeds at the first look; one seed gives no estimate of the noise between seeds


@dataclass(frozen=True)
class Look:
    """State after a number of seeds.

    Attributes:
        seeds: number of seeds of every open row.
        verdicts: [C] better, worse or undecided, after this look and all earlier ones.
        found: [C] contrast of each comparison at the look that decided it, else at this look; None before its first.
    """

    seeds: int
    verdicts: tuple[str, ...]
    found: tuple[Contrast | None, ...]

    @property
    def open(self) -> tuple[int, ...]:
        """Comparisons that are not decided."""
        return open_comparisons(self.verdicts)


def looks(
    values: ArrayLike,
    draws: ArrayLike | None,
    max_seeds: int,
    level: float = 0.95,
    images: int | None = None,
    first: int = FIRST,
) -> list[Look]:
    """All looks that the runs allow, in order.

    Args:
        values: [R, S] metric of each run; NaN if missing. The columns are the seeds in the order of adding them.
        draws: [R, S, B] metric on resampled images; None if the metric has no resamples.
        max_seeds: number of seeds at the last look.
        level: probability that no verdict of any look is wrong.
        images: number of test images.
        first: number of seeds at the first look, at least 2.
    """
    measured = np.asarray(values, float)
    resampled = None if draws is None else np.asarray(draws, float)
    rows = len(measured)
    if rows < 2:
        return []
    verdicts: tuple[str, ...] = ("undecided",) * (rows - 1)
    found: list[Contrast | None] = [None] * (rows - 1)
    done: list[Look] = []
    for seeds in range(first, min(measured.shape[1], max_seeds) + 1):
        part = measured[:, :seeds]
        still = open_comparisons(verdicts)
        ready = [c for c in still if _seeds(part, c) >= seeds]
        if not ready:
            break

        def spent(count: int, comparisons: int = len(still)) -> float:
            return look_level(min(count, max_seeds), max_seeds, level, comparisons=comparisons, first=first)

        judged = contrasts(
            part,
            None if resampled is None else resampled[:, :seeds],
            weights_beside_first(still, rows),
            level,
            images=images,
            verdict_level=spent(seeds),
            later_level=spent,
        )
        for c, contrast in zip(still, judged, strict=True):
            found[c] = contrast
        verdicts = settle(verdicts, [judged[i].verdict if c in ready else "undecided" for i, c in enumerate(still)])
        done.append(Look(seeds, verdicts, tuple(found)))
        if not open_comparisons(verdicts):
            break
    return done


def seeds_wanted(
    values: ArrayLike, look: Look | None, max_seeds: int, stuck: Sequence[int] = (), first: int = FIRST
) -> list[int]:
    """[R] number of seeds that each row should have after the next round; its present number if it needs no more.

    Args:
        values: see `looks`.
        look: the latest look; None before the first.
        max_seeds: largest number of seeds per row.
        stuck: rows whose last job failed; they get no more seeds.
        first: number of seeds at the first look.
    """
    have = np.isfinite(np.asarray(values, float)).sum(1)
    wanted = [int(n) for n in have]
    comparisons = range(len(wanted) - 1) if look is None else look.open
    alive = [c for c in comparisons if c + 1 not in stuck and 0 not in stuck]
    goal = first if look is None else min(look.seeds + 1, max_seeds)
    for row in {0, *(c + 1 for c in alive)} if alive else set():
        wanted[row] = max(wanted[row], goal)
    return wanted


def smallest_difference(
    run: float, image: float, *, rows: int, seeds: int, level: float = 0.95, power: float = 0.8
) -> float | None:
    """The smallest true difference from the baseline that a sweep decides with probability `power`.

    Args:
        run: standard deviation of a row's metric between seeds.
        image: standard deviation of a difference of two rows by the choice of test images.
        rows: number of rows including the baseline; verdicts are corrected over rows - 1 comparisons (by Bonferroni;
            Holm's method is at least as powerful).
        seeds: seeds per row; the result is None for fewer than two.

    Source: the usual formula with two quantiles of Student's t, (t[1 - alpha / 2] + t[power]) x standard error, with
    rows x (seeds - 1) degrees of freedom, assuming that all rows share one variance.
    """
    if seeds < FIRST or rows < 2:
        return None
    alpha, df = (1 - level) / (rows - 1), rows * (seeds - 1)
    error = math.sqrt(image**2 + 2 * run**2 / seeds)
    return float((special.stdtrit(df, 1 - alpha / 2) + special.stdtrit(df, power)) * error)


def noise_of(values: ArrayLike, draws: ArrayLike | None) -> tuple[float, float] | None:
    """(run, image) standard deviations for `smallest_difference`, estimated from finished runs.

    None if no row has two seeds.

    Args:
        values: [R, S].
        draws: [R, S, B]; None for a metric without resamples, whose images then count as fixed.
    """
    measured = np.asarray(values, float)
    kept = np.isfinite(measured)
    df = np.maximum(kept.sum(1) - 1, 0)
    if not df.sum():
        return None
    spread = [float(np.var(row[ok], ddof=1)) if ok.sum() > 1 else 0.0 for row, ok in zip(measured, kept, strict=True)]
    run = math.sqrt(float(np.dot(spread, df)) / float(df.sum()))
    return run, 0.0 if draws is None else _image_noise(measured, np.asarray(draws, float))


def _image_noise(values: NDArray[np.float64], draws: NDArray[np.float64]) -> float:
    """Image noise of a difference from row 0: covariance between seeds, averaged over rows and pairs of seeds."""
    found = []
    for row in range(1, len(values)):
        both = np.flatnonzero(np.isfinite(values[row]) & np.isfinite(values[0]))
        if len(both) < FIRST or not draws.shape[2]:
            continue
        table = np.cov(draws[row, both] - draws[0, both])
        found.append(float(table[~np.eye(len(both), dtype=bool)].mean()))
    return math.sqrt(max(float(np.mean(found)), 0.0)) if found else 0.0


def _seeds(values: NDArray[np.float64], comparison: int) -> int:
    counts = np.isfinite(values).sum(1)
    return int(min(counts[0], counts[comparison + 1]))


def weights_beside_first(comparisons: Sequence[int], rows: int) -> NDArray[np.float64]:
    """[C, R] weights of differences from row 0."""
    weights = np.zeros((len(comparisons), rows))
    weights[:, 0] = -1.0
    weights[np.arange(len(comparisons)), [c + 1 for c in comparisons]] = 1.0
    return weights
