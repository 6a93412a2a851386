"""Number of seeds or images that would decide a difference, and the smallest difference that could be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from scipy import special

from detlab.report.run_noise import LEAST_DF, MANY

MOST_SEEDS, MOST_IMAGES = 10_000, 100_000_000  # larger numbers count as "no number suffices"


class Measured(NamedTuple):
    """A contrast with at least two seeds per row."""

    size: float  # absolute value of the difference
    image: float  # variance by images
    image_df: float
    run: float  # variance by runs, of the mean over seeds
    df: float  # degrees of freedom of both together
    seeds: int
    images: int | None
    own: float = 0.0  # variance of the mean over seeds by how each run happens to respond to the images

    def image_df_of(self, seeds: float) -> float:
        """Degrees of freedom of the image variance with `seeds` times as many seeds.

        What is uncertain about it falls with the runs' own responses (contrast_images): with many seeds it is known as
        well as one variance is.
        """
        if self.image <= 0 or self.own <= 0:
            return self.image_df

        def doubt(own: float, count: float) -> float:
            return (self.image + own) ** 2 + own**2 / max(count - 1, 1)

        return self.image_df * doubt(self.own, self.seeds) / doubt(self.own / seeds, self.seeds * seeds)

    def with_more(self, seeds: float, images: float) -> tuple[float, float]:
        """Standard error and degrees of freedom with `seeds` times as many seeds and `images` times as many images.

        Each variance is divided by its factor; its degrees of freedom are multiplied by it (Satterthwaite).
        """
        image, run = self.image / images, self.run / seeds
        now = self.image + self.run
        run_doubt = max(now**2 / self.df - self.image**2 / self.image_df, 0.0)
        run_df = (self.seeds * seeds - 1) / (self.seeds - 1)
        doubt = run_doubt / (seeds**2 * run_df) + self.image**2 / (images**3 * self.image_df_of(seeds))
        total = image + run
        return total**0.5, max(total**2 / doubt, LEAST_DF) if doubt > 0 else MANY

    def decides(self, alpha: float, seeds: float = 1.0, images: float = 1.0) -> bool:
        """Whether the difference would be significant at level `alpha`."""
        error, df = self.with_more(seeds, images)
        return self.size > 0 and self.size >= error * -float(special.stdtrit(df, alpha / 2))


def seeds_needed(measured: Measured, alpha: Callable[[int], float], decided: bool) -> int | None:
    """Seeds per row that decide a difference of this size, all else equal; None if no number suffices.

    Args:
        alpha: level at which the difference is tested with a number of seeds; it must not fall with more seeds.
        decided: whether the present seeds have decided it; the result never contradicts this.
    """
    low, high = (2, measured.seeds) if decided else (measured.seeds + 1, MOST_SEEDS)
    return _least(low, high, lambda s: measured.decides(alpha(s), seeds=s / measured.seeds), decided)


def images_needed(measured: Measured, alpha: float, decided: bool) -> int | None:
    """Test images that decide the difference with the present seeds, tested at level `alpha`; see `seeds_needed`."""
    count = measured.images
    if count is None:
        return None
    low, high = (2, count) if decided else (count + 1, MOST_IMAGES)
    return _least(low, high, lambda n: measured.decides(alpha, images=n / count), decided)


def _least(low: int, high: int, enough: Callable[[int], bool], known: bool) -> int | None:
    """Smallest number from `low` to `high` that is enough; `known`: `high` is known to be enough."""
    if not known and not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def detectable(measured: Measured, alpha: float, power: float) -> float:
    """Smallest true difference found with probability `power`: standard error x (t[1 - alpha / 2] + t[power])."""
    error, df = measured.with_more(1.0, 1.0)
    return error * float(special.stdtrit(df, power) - special.stdtrit(df, alpha / 2))
