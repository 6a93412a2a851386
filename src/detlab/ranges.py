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
            return f"just {_plain(self.low)}"
        if math.isfinite(self.low) and math.isfinite(self.high) and not self.open_low:
            return f"from {_plain(self.low)} to {'below ' if self.open_high else ''}{_plain(self.high)}"
        low = f"{'above' if self.open_low else 'at least'} {_plain(self.low)}" if math.isfinite(self.low) else ""
        high = f"{'below' if self.open_high else 'at most'} {_plain(self.high)}" if math.isfinite(self.high) else ""
        return " and ".join(part for part in (low, high) if part)


def _plain(number: float) -> str:
    """A limit in digits, without an exponent for whole numbers."""
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclass(frozen=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Like:
    """Text that fits a regular expression as a whole, described in words."""

    pattern: str
    words: str


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
Images = Annotated[int, Range(1, 10_000)]  # of a batch
Workers = Annotated[int, Range(0, 256)]  # processes
Side = Annotated[int, Range(1, 65_535)]  # px of an image's side; JPEG's largest
Divisor = Annotated[int, Range(1, 1024)]  # of a canvas's sides
PerImage = Annotated[int, Range(1, 100_000)]  # boxes of an image, each a row of a padded tensor, used or not
Factor = Annotated[float, Range(0, 16, open_low=True)]  # of an image's or a canvas's sides
Layers = Annotated[int, Range(0, 256)]  # alike, one after another
OddCount = Annotated[int, Range(1, 255), Odd()]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Share = Annotated[float, Range(0, 1, open_low=True)]  # a share that must not be 0
OpenFraction = Annotated[float, Range(0, 1, open_low=True, open_high=True)]  # a prior, whose logit is finite
BelowOne = Annotated[float, Range(0, 1, open_high=True)]  # dropout, momentum
Seed = Annotated[int, Range(0, 2**32 - 1)]  # NumPy's range
