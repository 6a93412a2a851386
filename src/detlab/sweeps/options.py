"""Options of launchers, sweepers and `detlab ablate`: types and ranges, refused before work starts, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detlab.errors import ConfigError


def whole(key: str, value: Any, *, least: int | None = None, none: str = "") -> int | None:
    """An integer.

    Args:
        key: as on a command line.
        value: given.
        least: the smallest that works.
        none: what null means; "": null is refused.

    Raises:
        ConfigError: another type, or too small.
    """
    if value is None and none:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise _wrong(key, value, "a whole number", "" if least is None else f" from {least} on", none)
    return value


def seconds(key: str, value: Any, *, zero: bool = False, none: str = "") -> float | None:
    """A finite number above 0 (or from 0 on, if `zero`); see `whole`.

    Raises:
        ConfigError: another type, not finite, or too small.
    """
    if value is None and none:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise _wrong(key, value, "a number of seconds", " from 0 on" if zero else " above 0", none)
    return value


def one_of(key: str, value: Any, known: Sequence[str]) -> str:
    """A word.

    Raises:
        ConfigError: one that is not known.
    """
    if value not in known:
        raise ConfigError(f"{key}={shown(value)} is not known; use one of {', '.join(known)}.")
    return value


def flag(key: str, value: Any) -> bool:
    """true or false, and nothing that merely looks like it.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={shown(value)} must be true or false.")
    return value


def shown(value: Any) -> str:
    """A value as a command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _wrong(key: str, value: Any, what: str, span: str, none: str) -> ConfigError:
    other = f", or null for {none}" if none else ""
    return ConfigError(f"{key}={shown(value)} must be {what}{span}{other}.")
