"""Image noise: the variance of a metric by the choice of test images, estimated from resamples of them.

All runs are tested on the same images, so the effect of the images on a row is common to all of its seeds. It is the
covariance, over resamples, of two runs with different seeds. The variance of a single run is larger: it also contains
how this one run happens to respond to these images. That part belongs to the noise of runs, which is estimated from the
differences between seeds (run_noise.py).

R rows, S seeds, n runs that exist, B resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALL = 1e-9  # smallest degrees of freedom, for an estimate without information


class ImageNoise(NamedTuple):
    """Covariances over resamples of the images; NaN for rows whose runs have no resamples."""

    shared: Array  # [R, R] covariance between runs with different seeds
    own: Array  # [R] variance of a single run minus the shared part, at least 0
    of_runs: Array  # [R, R] covariance of the rows' means over their seeds: these runs on other images
    df: float  # degrees of freedom of a variance


def measure_images(draws: Array, present: NDArray[np.bool_], images: int | None) -> ImageNoise | None:
    """Covariances over resamples; None if fewer than two resamples are usable.

    A resample in which any run has no value (no box of a class was drawn) is left out for all runs.

    Args:
        draws: [R, S, B] metric on resamples.
        present: [R, S] runs that exist.
        images: number of test images; None treats it as large.
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
        covariance = covariance * (images / (images - 1))  # a bootstrap underestimates the variance by this factor
        inverse_df += 1 / (images - 1)
    member = (np.arange(len(draws))[:, None] == rows).astype(float)  # [R, n]
    count = member.sum(1)
    total = member @ covariance @ member.T
    pairs = np.outer(count, count)
    same = seeds[:, None] == seeds
    other_pairs = pairs - member @ same @ member.T
    other = total - member @ np.where(same, covariance, 0.0) @ member.T
    mean = _ratio(total, pairs)
    shared = np.where(other_pairs > 0, _ratio(other, other_pairs), mean)  # `mean` if no pair has different seeds
    own = np.maximum(_ratio(member @ np.diag(covariance), count) - np.diag(shared), 0)
    return ImageNoise(shared, own, mean, 1 / inverse_df)


def contrast_images(
    noise: ImageNoise | None, weights: Array, count: NDArray[np.int64], seeds: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """Image variance [C] of contrasts, NaN where not known, its degrees of freedom [C], and e [C].

    With several seeds it is the variance I that all seeds share. Its estimate is less certain because each run also
    responds to the images in its own way: with e = own / S and df degrees of freedom of a variance, the variance of the
    estimate is 2 ((I + e)^2 + e^2 / (S - 1)) / df, and Satterthwaite's degrees of freedom are 2 I^2 divided by that.
    With one seed it is the variance of these runs.

    Args:
        noise: result of `measure_images`.
        weights: [C, R].
        count: [R] seeds of each row.
        seeds: [C] smallest number of seeds of a row in the contrast.
    """
    if noise is None:
        return np.full(len(weights), np.nan), np.ones(len(weights)), np.zeros(len(weights))
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
    return np.where(unknown, np.nan, image), df, np.where(several, own, 0.0)


def _ratio(total: Array, count: Array) -> Array:
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
