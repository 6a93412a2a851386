"""Ranges and choices of config values, written as annotations of the constructors that take them.

`lr: Positive` says that a learning rate is above 0. `detlab.config.validate` reads these annotations before anything
is built and refuses a wrong value in one sentence that names its full key. To Python they are int, float and str.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, both included unless open."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.low == self.high:
            return f"just {self.low:g}"
        if math.isfinite(self.low) and math.isfinite(self.high) and not self.open_low:
            return f"from {self.low:g} to {'below ' if self.open_high else ''}{self.high:g}"
        low = f"{'above' if self.open_low else 'at least'} {self.low:g}" if math.isfinite(self.low) else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high:g}" if math.isfinite(self.high) else ""
        return " and ".join(part for part in (low, high) if part)


@dataclass(frozen=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """The number of entries of a list: from `least` to `most` (null: any number)."""

    least: int
    most: int | None = None


@dataclass(frozen=True)
class Odd:
    """Odd whole numbers: sides of kernels that keep a map's size."""


@dataclass(frozen=True)
class OptionsOf:
    """Further keyword arguments go to this class's constructor: `**options: Annotated[Any, OptionsOf(Class)]`."""

    cls: type[Any]


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
OddCount = Annotated[int, Range(1), Odd()]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Share = Annotated[float, Range(0, 1, open_low=True)]  # a share that must not be 0
OpenFraction = Annotated[float, Range(0, 1, open_low=True, open_high=True)]  # a prior, whose logit is finite
BelowOne = Annotated[float, Range(0, 1, open_high=True)]  # dropout, momentum
Seed = Annotated[int, Range(0, 2**32 - 1)]  # NumPy's range
