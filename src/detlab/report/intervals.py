"""Intervals and verdicts of differences between rows of a sweep, and the seeds or images that would decide them.

A contrast is a weighted sum of rows: a difference, a main effect, an interaction. Its error has two parts: the images
of the test split, which all runs share, and the runs, which differ by seed (initialisation, order of images,
augmentation, sampling). With weights w and S[r] seeds of row r,

    variance = image noise + sum over r of w[r]^2 * run noise[r] / S[r]

image_noise.py estimates the first part, run_noise.py the second. Degrees of freedom follow Satterthwaite (1946). The
interval is Student's t, averaged over the uncertainty about the noise of runs. Verdicts are corrected over all
contrasts of a call by Holm's method (1979). docs/intervals.md has the formulas and the measured coverage.

R rows, S seeds, B resamples, C contrasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from detlab.report.image_noise import contrast_images, measure_images
from detlab.report.needs import Measured, detectable, images_needed, seeds_needed
from detlab.report.run_noise import fit_prior, spread_of
from detlab.report.spending import holm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of rows with its interval and verdict.

    None stands for an unknown value, or for "no number suffices"; no field is NaN or infinite.

    Attributes:
        value: the weighted sum of the rows' means over seeds; None if a row has no seeds.
        low, high: interval of `value` at `level`, for this contrast alone (not corrected for the others). With one
            seed it covers the images only. None if the error cannot be estimated (no seeds; one seed and no resamples).
        verdict: "better" or "worse" (than 0, corrected over all contrasts), "undecided", "one seed" if a row has a
            single seed, "no runs" if a row has none.
        p: probability of a value at least as far from 0 if the truth is 0, uncorrected. With one seed: over images.
        p_adjusted: `p` corrected over all contrasts (Holm); if decided, at most 1 - the level of the verdicts.
        df: degrees of freedom of the t distribution closest to the one used.
        standard_error: standard error of `value`; `low` and `high` are t(`df`) standard errors away from it.
        image_share, run_share: shares of the error's variance; their sum is 1. None with one seed, without resamples
            (the interval then holds for these test images only), and if the error is 0.
        seeds: smallest number of seeds of a row in the contrast.
        seeds_needed: seeds per row that would decide a difference of `value`, with both noises as measured. None: no
            number suffices (the image noise is too large, or more than 10,000 are needed), or there is one seed.
        images_needed: test images that would decide it with the present seeds. None also if `images` was not given.
        detectable: smallest true difference that would have been decided with probability `power`.
        differ_here: with one seed, whether these trained detectors differ on images like these (corrected); else None.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: str
    p: float | None = None
    p_adjusted: float | None = None
    df: float | None = None
    standard_error: float | None = None
    image_share: float | None = None
    run_share: float | None = None
    seeds: int = 0
    seeds_needed: int | None = None
    images_needed: int | None = None
    detectable: float | None = None
    differ_here: bool | None = None

    @property
    def decided(self) -> bool:
        """Whether the verdict is "better" or "worse"."""
        return self.verdict in ("better", "worse")

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.verdict == "undecided":
            return "not distinguishable"
        if self.verdict != "one seed":
            return self.verdict
        if self.differ_here is None:
            return "one seed: nothing can be said"
        if self.differ_here:
            return "these two trained detectors differ on images like these; another seed may say otherwise"
        return "these two trained detectors are not distinguishable on images like these"

    @property
    def deciding(self) -> str:
        """Seeds or images that would decide a true difference as large as the observed one; "" if it is decided."""
        if self.decided:
            return ""
        if self.seeds < 2:
            return "a second seed" if self.seeds else "a run"
        if self.seeds_needed is not None:
            return f"{self.seeds_needed:,} seeds"
        return "no number of seeds" + (f"; {self.images_needed:,} images" if self.images_needed else "")


def contrasts(
    values: ArrayLike,
    draws: ArrayLike | None,
    weights: ArrayLike,
    level: float = 0.95,
    *,
    images: int | None = None,
    verdict_level: float | None = None,
    later_level: Callable[[int], float] | None = None,
    power: float = 0.8,
) -> tuple[Contrast, ...]:
    """Intervals and verdicts of C contrasts of R rows with up to S seeds each.

    Args:
        values: [R, S] metric of each run, one column per seed; NaN for a missing run.
        draws: [R, S, B] metric of each run on the same B resamples of the same test images; NaN where a resample has
            no value. None or B = 0: the images count as fixed.
        weights: [C, R] weight of each row in each contrast, such as [-1, 1, 0] for row 1 minus row 0.
        level: level of the intervals.
        images: number of test images; None treats it as large and leaves `images_needed` None.
        verdict_level: probability that no verdict of the call is wrong; None for `level` (detlab.report.spending
            computes it for repeated looks).
        later_level: `verdict_level` with a number of seeds, for `seeds_needed`: later looks are less strict. None: the
            same with any number.
        power: power at which `detectable` is computed.

    Raises:
        ValueError: shapes do not fit, values are infinite, weights are not finite, or a level is outside (0, 1).
    """
    given = _check(values, draws, weights, images)
    level, power = _fraction(level, "level"), _fraction(power, "power")
    alpha = 1 - (level if verdict_level is None else _fraction(verdict_level, "verdict_level"))
    rows = _summarise(given.values)
    seeds = _fewest(given.weights, rows.seeds)  # [C]
    noise = measure_images(given.draws, np.isfinite(given.values), images)
    image, image_df, own = contrast_images(noise, given.weights, rows.seeds, seeds)
    prior = fit_prior(rows.variance, rows.df) if rows.variance.any() else None
    shares = np.where(seeds[:, None] >= 2, given.weights**2 / np.maximum(rows.seeds, 1), 0.0)
    spread = spread_of(prior, rows.variance, rows.df, shares, np.nan_to_num(image), image_df)
    value = given.weights @ rows.mean
    half = spread.quantile(1 - level)
    df = spread.equivalent_df(half, 1 - level)
    p = np.where((seeds >= 2) | ((seeds == 1) & np.isfinite(image)), spread.tail(np.abs(value)), np.nan)
    adjusted, threshold = _families(p, seeds >= 2, alpha)
    known = [
        _Known(float(value[c]), int(seeds[c]), float(image[c]), float(image_df[c]), float(half[c]), float(df[c]),
               float(p[c]), float(adjusted[c]), float(threshold[c]), float(own[c]))
        for c in range(len(value))
    ]  # fmt: skip
    later = None if later_level is None else lambda n: 1 - _fraction(later_level(n), "later_level")
    return tuple(_describe(k, level, alpha, power, images, later) for k in known)


class _Given(NamedTuple):
    """Checked arguments."""

    values: Array  # [R, S]
    draws: Array  # [R, S, B]
    weights: Array  # [C, R]
    images: int | None


def _check(values: ArrayLike, draws: ArrayLike | None, weights: ArrayLike, images: int | None) -> _Given:
    values, weights = np.asarray(values, float), np.asarray(weights, float)
    if values.ndim != 2:
        raise ValueError(f"values must be [rows, seeds], not {list(values.shape)}")
    if weights.size == 0:
        weights = np.zeros((0, len(values)))
    if weights.ndim != 2 or weights.shape[1] != len(values):
        raise ValueError(
            f"weights must be [contrasts, {len(values)}], a column for each row, not {list(weights.shape)}"
        )
    draws = np.zeros((*values.shape, 0)) if draws is None else np.asarray(draws, float)
    if draws.ndim != 3 or draws.shape[:2] != values.shape:
        raise ValueError(f"draws must be [{', '.join(map(str, values.shape))}, resamples], not {list(draws.shape)}")
    if np.isinf(values).any() or np.isinf(draws).any():
        raise ValueError("values and draws must be finite, or NaN where a run or a resample has none")
    if not np.isfinite(weights).all():
        raise ValueError("weights must be finite")
    if images is not None and images < 2:
        raise ValueError(f"images must be at least 2, not {images}")
    return _Given(values, draws, weights, images)


def _fraction(number: float, name: str) -> float:
    if not 0 < number < 1:
        raise ValueError(f"{name} must lie between 0 and 1, not {number}")
    return float(number)


class _Rows(NamedTuple):
    """Statistics of each row over its seeds, [R] each."""

    seeds: NDArray[np.int64]  # number of seeds
    mean: Array  # 0 without seeds
    variance: Array  # between seeds; 0 with fewer than two
    df: Array


def _summarise(values: Array) -> _Rows:
    present = np.isfinite(values)
    count = present.sum(1)
    filled = np.where(present, values, 0.0)
    mean = filled.sum(1) / np.maximum(count, 1)
    df = np.maximum(count - 1, 0)
    variance = (np.where(present, filled - mean[:, None], 0.0) ** 2).sum(1) / np.maximum(df, 1)
    rounding = (1e-12 * np.abs(filled).max(initial=0.0)) ** 2
    return _Rows(count, mean, np.where(variance > rounding, variance, 0.0), df.astype(float))


def _fewest(weights: Array, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """[C] smallest number of seeds among the rows with a weight."""
    most = count.max(initial=0)
    return np.asarray(np.where(weights != 0, count, most).min(1, initial=most))


def _families(p: Array, several: NDArray[np.bool_], alpha: float) -> tuple[Array, Array]:
    """Holm's correction, separately for contrasts of several seeds and of one seed."""
    with_seeds, threshold = holm(np.where(several, p, np.nan), alpha)
    one_seed, _ = holm(np.where(several, np.nan, p), alpha)
    return np.where(several, with_seeds, one_seed), threshold


class _Known(NamedTuple):
    """Numbers of a contrast; NaN for unknown ones."""

    value: float
    seeds: int
    image: float  # image variance; with one seed, of these runs
    image_df: float
    half: float  # half width of the interval
    df: float
    p: float
    adjusted: float
    threshold: float  # level at which it is tested
    own: float  # variance of the mean over seeds by how each run happens to respond to the images


def _describe(
    known: _Known,
    level: float,
    alpha: float,
    power: float,
    images: int | None,
    later: Callable[[int], float] | None,
) -> Contrast:
    if known.seeds == 0:
        return Contrast(None, None, None, "no runs")
    if np.isnan(known.p):
        return Contrast(known.value, None, None, "one seed", seeds=known.seeds)
    still = known.half < 1e-100  # nothing varies
    error = 0.0 if still else known.half / float(special.stdtrit(known.df, (1 + level) / 2))
    half = 0.0 if still else known.half
    found = Contrast(
        known.value, known.value - half, known.value + half, "one seed", known.p, known.adjusted,
        None if still else known.df, error, seeds=known.seeds,
    )  # fmt: skip
    rejected = known.adjusted <= alpha
    if known.seeds == 1:
        return replace(found, differ_here=rejected)
    verdict = ("better" if known.value > 0 else "worse") if rejected else "undecided"
    image = 0.0 if np.isnan(known.image) else min(known.image, error**2)
    share = None if still or np.isnan(known.image) else image / error**2
    measured = Measured(
        abs(known.value), image, known.image_df, error**2 - image, known.df, known.seeds, images, known.own
    )

    def tested(seeds: int) -> float:
        """Level at which the contrast is tested with a number of seeds."""
        return known.threshold if later is None or rejected else known.threshold * max(later(seeds) / alpha, 1.0)

    return replace(
        found,
        verdict=verdict,
        image_share=share,
        run_share=None if share is None else 1 - share,
        seeds_needed=seeds_needed(measured, tested, rejected),
        images_needed=images_needed(measured, known.threshold, rejected),
        detectable=detectable(measured, known.threshold, power),
    )
