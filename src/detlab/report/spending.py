"""Divide the allowed error probability among the comparisons of a table and the looks at a growing sweep.

Adding seeds until a difference is decided means several looks, each with a chance of a wrong verdict. Lan & DeMets
(1983, "Discrete sequential boundaries for clinical trials") spend the error probability by a function of the share of
seeds present: here O'Brien and Fleming's, 4 - 4 Phi(z / sqrt(share)) with z the deviate of 1 - alpha / 4. It spends
little early and leaves the last look almost the level of a single look. The level of each look follows from the earlier
ones by integration over undecided paths, with independent seeds. All looks share the same images, which makes the looks
more similar, so the true error probability is lower.

Open comparisons share the error probability by Holm's method. A decided comparison passes its share on to the others
(Maurer & Bretz 2013, "Multiple testing in group sequential trials using graphical approaches") and stays decided.

    spent = look_level(seeds, max_seeds, comparisons=len(open))
    found = contrasts(values, draws, weights[open], verdict_level=spent)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

DECIDED = ("better", "worse")


def holm(p: ArrayLike, alpha: float) -> tuple[Array, Array]:
    """Holm's correction (1979): adjusted p values [C], and the level [C] at which each is tested.

    All hypotheses that are not rejected get the same level, the one at which the first of them failed. NaN values are
    not part of the family and stay NaN.
    """
    p = np.asarray(p, float)
    adjusted, threshold = np.full(p.shape, np.nan), np.full(p.shape, alpha)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    rejected = adjusted[order] <= alpha
    threshold[order] = alpha / np.where(rejected, steps, max(int((~rejected).sum()), 1))
    return adjusted, threshold


def look_level(seeds: int, max_seeds: int, level: float = 0.95, *, comparisons: int = 1, first: int = 2) -> float:
    """The `verdict_level` for `contrasts` at a look with `seeds` seeds, after looks at all numbers from `first` on.

    Args:
        seeds: present number of seeds; if rows differ, the smallest of an open comparison.
        max_seeds: number of seeds at the last look.
        level: probability that no verdict of any look is wrong.
        comparisons: number of open comparisons at this look, all of which must be passed to `contrasts`.
        first: number of seeds at the first look.

    Raises:
        ValueError: seeds outside first to max_seeds, a level outside (0, 1), or no comparison.
    """
    if not 2 <= first <= seeds <= max_seeds:
        raise ValueError(f"seeds must be {first} (at least 2) to {max_seeds}, not {seeds}")
    if not 0 < level < 1 or comparisons < 1:
        raise ValueError(f"level must lie between 0 and 1 and comparisons be at least 1, not {level} and {comparisons}")
    spent = comparisons * look_levels((1 - level) / comparisons, first, max_seeds)[seeds - first]
    return 1 - max(spent, 1e-12)  # a smaller value would round to a level of 1


def settle(before: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """Verdicts [C] after a look: decided ones stay, open ones are replaced by `found`, in order.

    Raises:
        ValueError: `found` is not as long as `open_comparisons(before)`.
    """
    still = open_comparisons(before)
    if len(found) != len(still):
        raise ValueError(f"{len(still)} comparisons are open, but {len(found)} verdicts were found")
    new = dict(zip(still, found, strict=True))
    return tuple(new.get(i, verdict) for i, verdict in enumerate(before))


def open_comparisons(verdicts: Sequence[str]) -> tuple[int, ...]:
    """Indices of the comparisons that are neither "better" nor "worse"."""
    return tuple(i for i, verdict in enumerate(verdicts) if verdict not in DECIDED)


@lru_cache(maxsize=256)
def look_levels(alpha: float, first: int, last: int) -> tuple[float, ...]:
    """Two-sided levels of the looks at `first` to `last` seeds, which together spend `alpha`."""
    shares = np.arange(first, last + 1) / last
    spent = 4 * special.ndtr(special.ndtri(alpha / 4) / np.sqrt(shares))
    cells, levels = np.linspace(-1.0, 1.0, 1201), []
    density, places = np.array([1.0]), np.array([0.0])  # undecided paths by score, a random walk of variance `share`
    for share, before, new in zip(shares, [0.0, *shares[:-1]], np.diff(spent, prepend=0.0), strict=True):
        deviation = float(np.sqrt(share - before))
        bound = _bound(density, places, deviation, float(new))
        levels.append(float(2 * special.ndtr(-bound / np.sqrt(share))))
        target = cells * bound
        kernel = np.exp(-(((target[:, None] - places) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
        density, places = kernel @ density * (target[1] - target[0]), target
        density[[0, -1]] /= 2  # trapezoid rule
    return tuple(levels)


def _bound(mass: Array, places: Array, deviation: float, probability: float) -> float:
    """Bound such that a step from `places` ends outside [-bound, bound] with this probability, by bisection."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        beyond = special.ndtr((places - middle) / deviation) + special.ndtr((-places - middle) / deviation)
        low, high = (middle, high) if float(mass @ beyond) > probability else (low, middle)
    return (low + high) / 2
