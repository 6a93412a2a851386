"""How much runs of one row differ, and what error of a contrast follows.

A row with S seeds tells its variance between runs with S - 1 degrees of freedom only, so rows lend each other some, as
in limma (Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression"): the true
variances of the rows are taken as draws of a scaled inverse chi-squared distribution of location v0 and d0 degrees of
freedom. Two things differ from the paper. It estimates d0, from thousands of genes; the few rows of an ablation cannot
tell d0, an estimate often says "all alike", and a noisy row among quiet ones then gets far too short an interval. So
d0 is a small constant, `TIE`. And v0, which the paper plugs in, is averaged over: each value weighs as much as the rows
make it likely.

R rows, C contrasts, N values of v0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

# d0. Larger: shorter intervals where rows are alike, too short ones for a noisy row among quiet ones. At 0.6, five
# seeds a row cost at most 15 % of width, and a row of ten times the others' variance is still covered
# (docs/intervals.md).
TIE = 0.6
STEPS = 24  # values of v0
MANY = 1e5  # degrees of freedom as good as no end of them
SMALL = 1e-300  # a variance of nothing: no error is farther from 0 than 1e-140


class Prior(NamedTuple):
    """Values of v0 and how likely the rows make each."""

    weight: Array  # [N], sums to 1
    v0: Array  # [N]


def fit_prior(variances: Array, df: Array) -> Prior:
    """Weigh values of v0 by the rows' variances.

    Given v0, variances / v0 follow F(df, TIE). The density before the rows are seen is flat in log v0.

    Args:
        variances: [R] of a row's runs, at least one above 0.
        df: [R] seeds less one; rows of 0 tell nothing.
    """
    variances, df = variances[df > 0], df[df > 0]
    centre = np.log((variances * df).sum() / df.sum())
    log_v0 = np.linspace(centre - 24.0, centre + 24.0, 2 * STEPS)
    for _ in range(2):  # where the weight lies, then a fine grid there
        excess = np.log1p(np.outer(np.exp(-log_v0), df * variances / TIE))  # [N, R]
        fits = -(df.sum() / 2) * log_v0 - excess @ ((df + TIE) / 2)
        near, step = log_v0[fits > fits.max() - 11.0], log_v0[1] - log_v0[0]
        log_v0, seen = np.linspace(near[0] - step, near[-1] + step, STEPS), log_v0
    weight = np.exp(fits - fits.max())
    keep = weight > 1e-3
    return Prior(weight[keep] / weight[keep].sum(), np.exp(seen[keep]))


class Spread(NamedTuple):
    """What is known of the error of C contrasts: a weighted mean of Student's t distributions."""

    weight: Array  # [N], sums to 1
    variance: Array  # [N, C], above 0
    df: Array  # [N, C]

    def tail(self, size: Array) -> Array:
        """[C] probability of an error farther from 0 than `size` [C]."""
        if len(self.weight) == 1:
            return np.asarray(2 * special.stdtr(self.df[0], -size / np.sqrt(self.variance[0])))
        return self._falls(size)[0]

    def _falls(self, size: Array) -> tuple[Array, Array]:
        """`tail` and its decrease with the logarithm of `size`, by Wallace's (1959) normal deviate of a t value."""
        square = np.minimum(size / np.sqrt(self.variance), 1e30) ** 2  # [N, C]
        shrink = ((8 * self.df + 1) / (8 * self.df + 3)) ** 2
        deviate = np.sqrt(shrink * self.df * np.log1p(square / self.df))
        steep = shrink * square / ((1 + square / self.df) * np.maximum(deviate, 1e-12))
        density = np.exp(-(deviate**2) / 2) / np.sqrt(2 * np.pi)
        return self.weight @ (2 * special.ndtr(-deviate)), self.weight @ (2 * density * steep)

    def quantile(self, alpha: float) -> Array:
        """[C] size that the error exceeds with probability `alpha`: Newton's method on logarithms."""
        if len(self.weight) == 1:
            return np.asarray(np.sqrt(self.variance[0]) * -special.stdtrit(self.df[0], alpha / 2))
        size = -special.ndtri(alpha / 2) * (self.weight @ np.sqrt(self.variance))
        for _ in range(50):
            tail, fall = self._falls(size)
            step = np.log(np.maximum(tail, 1e-300) / alpha) * tail / np.maximum(fall, 1e-300)
            size = size * np.exp(np.clip(step, -1, 1))
            if (np.abs(step) < 1e-6).all():  # what is left is far below that
                break
        return np.asarray(size)

    def equivalent_df(self, quantile: Array, alpha: float) -> Array:
        """[C] degrees of freedom of the t distribution that falls off alike from half the quantile of alpha to it."""
        half = self.tail(quantile / 2)
        log_df, falls = _falls_of_t(alpha)
        return np.exp(np.interp(half, falls, log_df))


@lru_cache(maxsize=64)
def _falls_of_t(alpha: float) -> tuple[Array, Array]:
    """Logarithms of degrees of freedom [200], and how likely t is beyond half its quantile of alpha [200]."""
    log_df = np.linspace(np.log(0.5), np.log(MANY), 200)
    df = np.exp(log_df)
    return log_df, 2 * special.stdtr(df, special.stdtrit(df, alpha / 2) / 2)


def spread_of(prior: Prior | None, variances: Array, df: Array, shares: Array, image: Array, image_df: Array) -> Spread:
    """The error of contrasts: runs' noise by `prior` plus images' noise.

    The runs' part is one scaled inverse chi-squared variable with Satterthwaite's (1946) degrees of freedom. Taking its
    sum with the images' part for one such variable, too, makes intervals too short where two seeds tell little of a
    large part; adding the images' part to each of its quantiles (as Behrens and Fisher did) makes them too long. Both
    agree where either part is alone. Each has half of the weight, which was chosen by simulation.

    Args:
        prior: None where no run differs from another of its row.
        variances, df: [R] as for `fit_prior`.
        shares: [C, R] what a row's variance adds to a contrast's: squared weight / seeds.
        image: [C] variance by images; image_df: [C] its degrees of freedom.
    """
    if prior is None:
        return Spread(np.ones(1), np.maximum(image, SMALL)[None], image_df[None])
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
    return Spread(weights, variance, np.minimum(freedom, MANY))


def _inverse_chi_squared(df: Array) -> tuple[Array, Array]:
    """Weights [Q] and values [Q, ...] of df / chi-squared: Gauss and Legendre's rule, denser where values are large."""
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
    """Logarithms of degrees of freedom [300] and of the values of `_inverse_chi_squared` [Q, 300]."""
    log_df = np.linspace(np.log(0.2), np.log(MANY), 300)
    return log_df, np.log(np.exp(log_df) / special.chdtri(np.exp(log_df), 1 - _RULE[0][:, None]))
