"""detlab benchmark: `python -m detlab.benchmark target=step KEY=VALUE ...`; the last line is `ratio X`."""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TARGETS = {
    "step": "time of a training step, and where it goes",
    "inference": "time of a detection, images as they come",
    "loader": "images per second of decode, augment and collate",
    "metrics": "time of COCO AP over a validation set",
    "memory": "peak memory of a training step",
    "scaling": "growth of time and memory with batch, side, boxes and classes",
}

Option = bool | int | float | str | None


class OptionError(ValueError):
    """An option that does not exist, or a value that does not fit."""


def main(arguments: Sequence[str]) -> None:
    """Run one target and print its figures."""
    if any(a in ("-h", "--help") for a in arguments):
        print(usage())
        return
    given = parse(arguments)
    target = given.pop("target", "step")
    into = given.pop("json", None)
    run = find_target(target)
    result = run(**settle(run, given))
    if into is not None:
        Path(into).write_text(json.dumps({"target": target, **result}, indent=1) + "\n")
        print(f"json {into}")
    print(f"ratio {result['ratio']:.3f}")


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE arguments as a dict.

    Raises:
        OptionError: an argument without =, or a key twice.
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


def find_target(target: str) -> Any:
    """The `run` of a target.

    Raises:
        OptionError: an unknown target.
    """
    known = [name for name in TARGETS if find_spec(f"detlab.benchmark.{name}")]
    if target not in known:
        raise OptionError(f"target={target} is not known; use one of {', '.join(known)}.")
    return import_module(f"detlab.benchmark.{target}").run


def settle(run: Any, given: Mapping[str, str]) -> dict[str, Option]:
    """Values of the options given, of the type of their default in `run`'s signature.

    Raises:
        OptionError: a key that `run` does not have, or a value of another type.
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
        return type(default)(text) if default is not None else (int(text) if text.lstrip("-").isdigit() else text)
    except ValueError as error:
        raise OptionError(f"{key}={text} must be a number, such as {key}={default}.") from error


def usage() -> str:
    """Targets with their options and defaults."""
    lines = ["usage: detlab benchmark target=TARGET [KEY=VALUE ...] [json=FILE]", ""]
    for name, text in TARGETS.items():
        if find_spec(f"detlab.benchmark.{name}"):
            parameters = inspect.signature(find_target(name)).parameters.values()
            lines += [
                f"  {name:10} {text}",
                "             " + " ".join(f"{p.name}={_shown(p.default)}" for p in parameters),
            ]
    return "\n".join(lines)


def _shown(value: Option) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OptionError as mistake:
        print(f"detlab benchmark: {mistake}", file=sys.stderr)
        sys.exit(2)
