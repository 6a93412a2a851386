"""KEY=VALUE options of the benchmarks, typed by the signature of the target's `run`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Option = bool | int | float | str | None


class OptionError(ValueError):
    """An option does not exist, or its value has the wrong type."""


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE arguments as a dict.

    Raises:
        OptionError: an argument has no =, or a key is given twice.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise OptionError(f"{argument} is not KEY=VALUE; see detlab benchmark --help.")
        if key in given:
            raise OptionError(f"{key} is given twice ({given[key]} and {value}); leave one of the two out.")
        given[key] = value
    return given


def settle(run: Callable[..., Any], given: Mapping[str, str]) -> dict[str, Option]:
    """Convert the given options to the types of their defaults in `run`'s signature.

    Raises:
        OptionError: `run` has no such option, or the value has another type.
    """
    known = inspect.signature(run).parameters
    options: dict[str, Option] = {}
    for key, text in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"options: {', '.join(known)}, json"
            raise OptionError(f"There is no option {key} here; {hint}")
        options[key] = _typed(key, text, known[key].default)
    return options


def _typed(key: str, text: str, default: Option) -> Option:
    if text in ("null", "None"):
        return None
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise OptionError(f"{key}={text} must be true or false.")
        return text.lower() == "true"
    try:
        return type(default)(text) if default is not None else (int(text) if text.lstrip("-").isdecimal() else text)
    except ValueError as error:
        raise OptionError(f"{key}={text} must be a number, such as {key}={default}.") from error
