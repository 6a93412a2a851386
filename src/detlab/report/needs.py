"""How many seeds or images would decide a difference, and how small a difference could have been found."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from scipy import special

MOST_SEEDS, MOST_IMAGES = 10_000, 100_000_000  # beyond, no number is said to do


class Measured(NamedTuple):
    """A contrast of at least two seeds a row."""

    size: float  # of the difference, without sign
    image: float  # variance by images
    image_df: float
    run: float  # variance by runs, of the mean over seeds
    df: float  # of both together
    seeds: int
    images: int | None

    def with_more(self, seeds: float, images: float) -> tuple[float, float]:
        """Standard error and degrees of freedom with so many times the seeds and the images.

        Each part falls as its number grows, and its degrees of freedom grow likewise (Satterthwaite).
        """
        image, run = self.image / images, self.run / seeds
        now = self.image + self.run
        run_doubt = max(now**2 / self.df - self.image**2 / self.image_df, 0.0)
        run_df = (self.seeds * seeds - 1) / (self.seeds - 1)
        doubt = run_doubt / (seeds**2 * run_df) + self.image**2 / (images**3 * self.image_df)
        total = image + run
        return total**0.5, total**2 / doubt if doubt > 0 else 1e6

    def decides(self, alpha: float, seeds: float = 1.0, images: float = 1.0) -> bool:
        """Whether the difference would be called one."""
        error, df = self.with_more(seeds, images)
        return self.size > 0 and self.size >= error * -float(special.stdtrit(df, alpha / 2))


def seeds_needed(measured: Measured, alpha: float, decided: bool) -> int | None:
    """Seeds a row that decide a difference of this size, all else equal; None if no number does.

    Args:
        alpha: level at which the difference is judged.
        decided: whether the seeds there are did; the answer agrees.
    """
    low, high = (2, measured.seeds) if decided else (measured.seeds + 1, MOST_SEEDS)
    return _least(low, high, lambda s: measured.decides(alpha, seeds=s / measured.seeds), decided)


def images_needed(measured: Measured, alpha: float, decided: bool) -> int | None:
    """As `seeds_needed`, of test images with the seeds there are."""
    count = measured.images
    if count is None:
        return None
    low, high = (2, count) if decided else (count + 1, MOST_IMAGES)
    return _least(low, high, lambda n: measured.decides(alpha, images=n / count), decided)


def _least(low: int, high: int, enough: Callable[[int], bool], known: bool) -> int | None:
    """Smallest number from `low` to `high` that is enough; `known` says that `high` is."""
    if not known and not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def detectable(measured: Measured, alpha: float, power: float) -> float:
    """Smallest true difference that is found with probability `power`: (t of the level + t of the power) errors."""
    error, df = measured.with_more(1.0, 1.0)
    return error * float(special.stdtrit(df, power) - special.stdtrit(df, alpha / 2))
