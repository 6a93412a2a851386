"""How much a metric owes to the test images, from its values on resamples of them.

All runs see the same images, so what an image does to a row comes back with every seed of it: the covariance, over
resamples, of two runs of different seeds. The variance of one run is more than that, for it holds what the run makes of
these images by chance; that goes with the run and is told from the differences between seeds (run_noise.py).

R rows, S seeds, n runs that exist, B resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALL = 1e-9  # degrees of freedom of an estimate that is all chance


class ImageNoise(NamedTuple):
    """Covariances by images; NaN for rows whose runs have no resamples."""

    shared: Array  # [R, R] of different seeds
    own: Array  # [R] what a single run's variance has beyond, at least 0
    of_runs: Array  # [R, R] of the rows' means over the seeds there are: these very runs on other images
    df: float  # degrees of freedom of a variance


def measure_images(draws: Array, present: NDArray[np.bool_], images: int | None) -> ImageNoise | None:
    """Covariances over resamples; None where fewer than two resamples can be used.

    A resample in which any run has no value (no box of a class was drawn) is left out for all.

    Args:
        draws: [R, S, B].
        present: [R, S] runs that exist.
        images: how many there are; None takes them for many.
    """
    rows, seeds = np.nonzero(present & np.isfinite(draws).any(-1))
    runs = draws[rows, seeds]  # [n, B]
    runs = runs[:, np.isfinite(runs).all(0)]
    if not len(rows) or runs.shape[1] < 2:
        return None
    resamples = runs.shape[1]
    centred = runs - runs.mean(1, keepdims=True)
    centred[np.abs(centred) < 1e-12 * np.abs(runs).max()] = 0.0  # rounding
    covariance = centred @ centred.T / (resamples - 1)
    inverse_df = 1 / (resamples - 1)
    if images is not None:
        covariance = covariance * (images / (images - 1))  # a bootstrap's variance is short by this
        inverse_df += 1 / (images - 1)
    member = (np.arange(len(draws))[:, None] == rows).astype(float)  # [R, n]
    count = member.sum(1)
    total = member @ covariance @ member.T
    pairs = np.outer(count, count)
    same = seeds[:, None] == seeds
    other_pairs = pairs - member @ same @ member.T
    other = total - member @ np.where(same, covariance, 0.0) @ member.T
    mean = _ratio(total, pairs)
    shared = np.where(other_pairs > 0, _ratio(other, other_pairs), mean)  # rows of one seed alone: nothing but the same
    own = np.maximum(_ratio(member @ np.diag(covariance), count) - np.diag(shared), 0)
    return ImageNoise(shared, own, mean, 1 / inverse_df)


def contrast_images(
    noise: ImageNoise | None, weights: Array, count: NDArray[np.int64], seeds: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Variance [C] of contrasts by images, NaN where not known, and its degrees of freedom [C].

    With several seeds, the variance that all seeds share. What single runs make of the images makes its estimate less
    sure: with I shared, e = own / S and df degrees of freedom of a variance, it varies by
    2 ((I + e)^2 + e^2 / (S - 1)) / df, and Satterthwaite's degrees of freedom are 2 I^2 over that.
    With one seed, the variance of these runs.

    Args:
        noise: as `measure_images` found it.
        weights: [C, R].
        count: [R] seeds of each row.
        seeds: [C] fewest seeds of a row of the contrast.
    """
    if noise is None:
        return np.full(len(weights), np.nan), np.ones(len(weights))
    unknown = ((weights != 0) & np.isnan(np.diag(noise.shared))).any(1)
    several = seeds >= 2
    matrices = [np.nan_to_num(m) for m in (noise.shared, noise.of_runs)]
    shared, of_runs = (np.einsum("cr,rq,cq->c", weights, m, weights) for m in matrices)
    shared = np.maximum(shared, 0)
    own = weights**2 @ (np.nan_to_num(noise.own) / np.maximum(count, 1))
    doubt = (shared + own) ** 2 + own**2 / np.maximum(seeds - 1, 1)
    df = np.divide(noise.df * shared**2, doubt, out=np.full(len(weights), noise.df), where=doubt > 0)
    df = np.where(several & (shared > 0), np.maximum(df, SMALL), noise.df)
    image = np.where(several, shared, np.maximum(of_runs, 0))
    return np.where(unknown, np.nan, image), df


def _ratio(total: Array, count: Array) -> Array:
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
