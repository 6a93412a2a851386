"""What else is used to judge such differences, in a few lines each, for comparison.

Each method takes values [R, S], draws [R, S, B], weights [C, R] of differences of two rows and a level, and returns low
and high, [C] each. Verdicts at a corrected level are Bonferroni's, which all of them allow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from detlab.report.intervals import contrasts
from tests.report.simulating import World, against_first, table, world

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]
Method = Callable[[Array, Array, Array, float], Bounds]


def ours(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """`contrasts`."""
    found = contrasts(values, draws, weights, level, images=100)
    return np.array([c.low for c in found]), np.array([c.high for c in found])


def welch(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """Welch's t over seeds; images are not thought of."""
    seeds = values.shape[1]
    parts = weights**2 * values.var(1, ddof=1) / seeds  # [C, R]
    df = parts.sum(1) ** 2 / (parts**2 / (seeds - 1)).sum(1)
    half = special.stdtrit(df, (1 + level) / 2) * np.sqrt(parts.sum(1))
    middle = weights @ values.mean(1)
    return middle - half, middle + half


def paired_t(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """Paired t over seeds, which autorank chooses for two normal populations."""
    differences = weights @ values  # [C, S]
    seeds = values.shape[1]
    half = special.stdtrit(seeds - 1, (1 + level) / 2) * differences.std(1, ddof=1) / np.sqrt(seeds)
    return differences.mean(1) - half, differences.mean(1) + half


def rliable(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """Agarwal et al. (2021): runs of each row drawn with replacement, percentiles of the difference."""
    generator = np.random.default_rng(0)
    chosen = generator.integers(values.shape[1], size=(*values.shape, 1000))
    return _percentiles(weights @ np.take_along_axis(values[..., None], chosen, axis=1).mean(1), level)


def images_only(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """One run of each row, images drawn with replacement: a comparison of two result files."""
    return _percentiles(weights @ draws[:, 0], level)


def images_and_seeds(values: Array, draws: Array, weights: Array, level: float) -> Bounds:
    """Images and seeds drawn with replacement, deviations between seeds stretched by sqrt(S / (S - 1))."""
    per_seed = np.einsum("cr,rsb->csb", weights, draws)
    seeds, resamples = per_seed.shape[1:]
    generator, mean = np.random.default_rng(0), per_seed.mean(1)
    chosen = np.broadcast_to(generator.integers(seeds, size=(seeds, resamples)), per_seed.shape)
    drawn = np.take_along_axis(per_seed, chosen, axis=1).mean(1)
    return _percentiles(mean + np.sqrt(seeds / (seeds - 1)) * (drawn - mean), level)


def _percentiles(draws: Array, level: float) -> Bounds:
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)], axis=1)
    return low, high


def nemenyi(values: Array, alpha: float) -> NDArray[np.bool_]:
    """[R - 1] whether Friedman's test and then Nemenyi's tell a row from the first, seeds being the samples.

    autorank's choice for populations that are not all normal. Mean ranks give no interval in units of the metric.
    """
    rows, seeds = values.shape
    ranks = stats.rankdata(values, axis=0).mean(1)
    friedman = 12 * seeds / (rows * (rows + 1)) * ((ranks - (rows + 1) / 2) ** 2).sum()
    if special.chdtrc(rows - 1, friedman) > alpha:
        return np.zeros(rows - 1, bool)
    apart = stats.studentized_range.ppf(1 - alpha, rows, np.inf) / np.sqrt(2) * np.sqrt(rows * (rows + 1) / (6 * seeds))
    return np.asarray(np.abs(ranks[1:] - ranks[0]) > apart)


METHODS: dict[str, Method] = {
    "this": ours,
    "Welch's t over seeds": welch,
    "paired t over seeds": paired_t,
    "rliable, stratified bootstrap of seeds": rliable,
    "bootstrap of images, one run each": images_only,
    "bootstrap of images and seeds": images_and_seeds,
}


def judge_method(method: Method, place: World, repeats: int, seed: int = 0) -> tuple[float, float, float, float]:
    """Coverage, width beside one that knows the variances, false verdicts uncorrected and by Bonferroni; equal rows."""
    weights = against_first(place.rows)
    best = 1.959964 * place.deviation(weights)
    held = width = 0.0
    wrong = [0, 0]
    for values, draws in place.sweeps(repeats, seed):
        low, high = method(values, draws, weights, 0.95)
        held += ((low <= 0) & (high >= 0)).mean()
        width += ((high - low) / 2 / best).mean()
        wrong[0] += bool(((low > 0) | (high < 0)).any())
        low, high = method(values, draws, weights, 1 - 0.05 / len(weights))
        wrong[1] += bool(((low > 0) | (high < 0)).any())
    return held / repeats, width / repeats, wrong[0] / repeats, wrong[1] / repeats


def methods_table(repeats: int) -> str:
    """Ten equal rows, a third of `repeats`; runs vary as images do or four times as much, every other row x4."""
    places = [(noise, seeds) for noise in ("1", "4") for seeds in (2, 3, 5)]
    lines = []
    for name, method in METHODS.items():
        cells = []
        for noise, seeds in places:
            figures = judge_method(method, world(10, seeds, noise, "every other x4"), repeats // 3)
            cells.append("{:.2f} {:.2f} {:.2f} {:.2f}".format(*figures))
        lines.append([name, *cells])
        print(lines[-1], file=sys.stderr)
    cells = []
    for noise, seeds in places:
        sweeps = world(10, seeds, noise, "every other x4").sweeps(repeats // 3)
        cells.append(f"- - {np.mean([nemenyi(values, 0.05).any() for values, _ in sweeps]):.2f} -")
    lines.append(["Friedman and Nemenyi over seeds", *cells])
    return table(["coverage, width, false, corrected", *[f"{n}, {s} seeds" for n, s in places]], lines)
