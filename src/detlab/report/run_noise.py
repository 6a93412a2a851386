"""Run noise: the variance between runs of one row, and the resulting error of a contrast.

S seeds estimate a row's variance with S - 1 degrees of freedom only, so rows share information as in limma (Smyth 2004,
"Linear models and empirical Bayes methods for assessing differential expression"): the true variances of the rows are
modelled as draws from a scaled inverse chi-squared distribution with location v0 and d0 degrees of freedom. There are
two deviations from the paper. First, the paper estimates d0 from thousands of genes. The few rows of an ablation do not
suffice for that: the estimate is often "all variances equal", and the interval of a noisy row among quiet ones becomes
far too short. Here d0 is a small constant, `TIE`. Second, the paper uses a point estimate of v0; here the result is
averaged over v0, weighted by likelihood.

R rows, C contrasts, N values of v0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

# d0. Larger values give shorter intervals if rows have equal noise, but too short ones for a noisy row among quiet
# ones. At 0.6 with five seeds per row, intervals are at most 15 % wider, and a row with ten times the variance of the
# others is still covered (docs/intervals.md).
TIE = 0.6
STEPS = 24  # number of values of v0
MANY = 1e5  # degrees of freedom that count as infinite
LEAST_DF = 1.0  # fewer degrees of freedom say that hardly anything is known; quantiles of t would exceed any metric
SMALL = 1e-300  # replaces a variance of 0, so that divisions work; errors stay below 1e-140


class Prior(NamedTuple):
    """Values of v0 with their posterior weights given the rows."""

    weight: Array  # [N], sums to 1
    v0: Array  # [N]


def fit_prior(variances: Array, df: Array) -> Prior:
    """Weight values of v0 by the likelihood of the rows' variances.

    Given v0, variances / v0 follow F(df, TIE). The prior density is flat in log v0.

    Args:
        variances: [R] variance between a row's runs, at least one above 0.
        df: [R] number of seeds - 1; rows with 0 are ignored.
    """
    variances, df = variances[df > 0], df[df > 0]
    centre = np.log((variances * df).sum() / df.sum())
    log_v0 = np.linspace(centre - 24.0, centre + 24.0, 2 * STEPS)
    for _ in range(2):  # a coarse grid to find the relevant range, then a fine grid
        excess = np.log1p(np.outer(np.exp(-log_v0), df * variances / TIE))  # [N, R]
        fits = -(df.sum() / 2) * log_v0 - excess @ ((df + TIE) / 2)
        near, step = log_v0[fits > fits.max() - 11.0], log_v0[1] - log_v0[0]
        log_v0, seen = np.linspace(near[0] - step, near[-1] + step, STEPS), log_v0
    weight = np.exp(fits - fits.max())
    keep = weight > 1e-3
    return Prior(weight[keep] / weight[keep].sum(), np.exp(seen[keep]))


class Spread(NamedTuple):
    """Distribution of the error of C contrasts: a mixture of Student's t distributions."""

    weight: Array  # [N], sums to 1
    variance: Array  # [N, C], above 0
    df: Array  # [N, C]

    def tail(self, size: Array) -> Array:
        """[C] probability of an error whose absolute value exceeds `size` [C]."""
        if len(self.weight) == 1:
            return np.asarray(2 * special.stdtr(self.df[0], -size / np.sqrt(self.variance[0])))
        return self._falls(size)[0]

    def _falls(self, size: Array) -> tuple[Array, Array]:
        """`tail` and minus its derivative by log `size`, with Wallace's (1959) normal approximation of t."""
        square = np.minimum(size / np.sqrt(self.variance), 1e30) ** 2  # [N, C]
        shrink = ((8 * self.df + 1) / (8 * self.df + 3)) ** 2
        deviate = np.sqrt(shrink * self.df * np.log1p(square / self.df))
        steep = shrink * square / ((1 + square / self.df) * np.maximum(deviate, 1e-12))
        density = np.exp(-(deviate**2) / 2) / np.sqrt(2 * np.pi)
        return self.weight @ (2 * special.ndtr(-deviate)), self.weight @ (2 * density * steep)

    def quantile(self, alpha: float) -> Array:
        """[C] size that the absolute error exceeds with probability `alpha`, by Newton's method on logarithms."""
        if len(self.weight) == 1:
            return np.asarray(np.sqrt(self.variance[0]) * -special.stdtrit(self.df[0], alpha / 2))
        size = -special.ndtri(alpha / 2) * (self.weight @ np.sqrt(self.variance))
        for _ in range(50):
            tail, fall = self._falls(size)
            step = np.log(np.maximum(tail, 1e-300) / alpha) * tail / np.maximum(fall, 1e-300)
            size = size * np.exp(np.clip(step, -1, 1))
            if (np.abs(step) < 1e-6).all():  # quadratic convergence: the remaining error is far smaller
                break
        return np.asarray(size)

    def equivalent_df(self, quantile: Array, alpha: float) -> Array:
        """[C] degrees of freedom of the t distribution with the same tail at half of its quantile of alpha."""
        half = self.tail(quantile / 2)
        log_df, falls = _falls_of_t(alpha)
        return np.exp(np.interp(half, falls, log_df))


@lru_cache(maxsize=64)
def _falls_of_t(alpha: float) -> tuple[Array, Array]:
    """Log degrees of freedom [200], and the tail probability of t at half of its quantile of alpha [200]."""
    log_df = np.linspace(np.log(0.5), np.log(MANY), 200)
    df = np.exp(log_df)
    return log_df, 2 * special.stdtr(df, special.stdtrit(df, alpha / 2) / 2)


def spread_of(prior: Prior | None, variances: Array, df: Array, shares: Array, image: Array, image_df: Array) -> Spread:
    """Error distribution of contrasts: run noise by `prior` plus image noise.

    The run part is a scaled inverse chi-squared variable with Satterthwaite's (1946) degrees of freedom. There are two
    ways to add the image part. Treating the sum as one such variable gives intervals that are too short if the run part
    is large and known from two seeds only. Adding the image part to each quantile of the run part (Behrens and Fisher)
    gives intervals that are too long. Both agree if one part is 0. The result mixes them with equal weights, which were
    chosen by simulation.

    Args:
        prior: None if the runs of each row are all equal.
        variances, df: [R], see `fit_prior`.
        shares: [C, R] factor of a row's variance in the variance of a contrast: squared weight / seeds.
        image: [C] image variance; image_df: [C] its degrees of freedom.
    """
    if prior is None:
        return Spread(np.ones(1), np.maximum(image, SMALL)[None], np.maximum(image_df, LEAST_DF)[None])
    moderated = (TIE * prior.v0[:, None] + df * variances) / (TIE + df)  # [N, R]
    run = moderated @ shares.T  # [N, C]
    doubt = moderated**2 @ (shares**2 / (TIE + df)).T
    run_df = np.divide(run**2, doubt, out=np.ones_like(run), where=doubt > 0)
    weight, factors = _inverse_chi_squared(run_df)
    image_doubt = image**2 / image_df
    split = (run * factors + image).reshape(len(weight) * len(run), len(image))  # [Q N, C]
    whole = run + image
    variance = np.maximum(np.concatenate([split, whole]), SMALL)
    known = np.concatenate([np.broadcast_to(image_doubt, split.shape), doubt + image_doubt])
    freedom = np.divide(variance**2, known, out=np.full_like(variance, MANY), where=known > 0)
    weights = np.concatenate([np.outer(weight, prior.weight).ravel(), prior.weight]) / 2
    return Spread(weights, variance, np.clip(freedom, LEAST_DF, MANY))


def _inverse_chi_squared(df: Array) -> tuple[Array, Array]:
    """Weights [Q] and values [Q, ...] of df / chi-squared by Gauss-Legendre quadrature, denser at large values."""
    log_df, quantiles = _quantiles()
    place = np.clip((np.log(df) - log_df[0]) / (log_df[1] - log_df[0]), 0, len(log_df) - 1.001)
    below = place.astype(int)
    part = place - below
    return _RULE[1], np.exp((1 - part) * quantiles[:, below] + part * quantiles[:, below + 1])


def _rule(points: int) -> tuple[Array, Array]:
    x, weight = np.polynomial.legendre.leggauss(points)
    return ((x + 1) / 2) ** 3, 3 * ((x + 1) / 2) ** 2 * weight / 2


_RULE = _rule(9)  # Q probabilities and their weights


@lru_cache(maxsize=1)
def _quantiles() -> tuple[Array, Array]:
    """Log degrees of freedom [300] and log values of `_inverse_chi_squared` [Q, 300]."""
    log_df = np.linspace(np.log(0.2), np.log(MANY), 300)
    return log_df, np.log(np.exp(log_df) / special.chdtri(np.exp(log_df), 1 - _RULE[0][:, None]))
