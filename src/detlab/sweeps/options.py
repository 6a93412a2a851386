"""Check options of launchers, sweepers and `detlab ablate`; a wrong type or value is reported in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detlab.errors import ConfigError


def whole(key: str, value: Any, *, least: int | None = None, none: str = "") -> int | None:
    """Check an integer.

    Args:
        key: name of the option on the command line.
        value: given value.
        least: smallest allowed value.
        none: meaning of null, for the message; "": null is refused.

    Raises:
        ConfigError: the value has another type or is too small.
    """
    if value is None and none:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise _wrong(key, value, "a whole number", "" if least is None else f" from {least} on", none)
    return value


def seconds(key: str, value: Any, *, zero: bool = False, none: str = "") -> float | None:
    """Check a finite number above 0 (with `zero`: 0 is allowed); see `whole`.

    Raises:
        ConfigError: the value has another type, is not finite, or is too small.
    """
    if value is None and none:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise _wrong(key, value, "a number of seconds", " from 0 on" if zero else " above 0", none)
    return value


def one_of(key: str, value: Any, known: Sequence[str]) -> str:
    """Check that a value is one of the known words.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        raise ConfigError(f"{key}={shown(value)} is not known; use one of {', '.join(known)}.")
    return value


def flag(key: str, value: Any) -> bool:
    """Check a boolean; other values such as 1 or "yes" are refused.

    Raises:
        ConfigError: the value is not true or false.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={shown(value)} must be true or false.")
    return value


def shown(value: Any) -> str:
    """A value as written on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _wrong(key: str, value: Any, what: str, span: str, none: str) -> ConfigError:
    other = f", or null for {none}" if none else ""
    return ConfigError(f"{key}={shown(value)} must be {what}{span}{other}.")
