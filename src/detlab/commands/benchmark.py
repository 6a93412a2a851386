"""detlab benchmark: speed and memory compared with torchvision's detectors; the last line is `ratio X`.

target=data has no other side, and no such line.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from detlab.benchmark.options import Option, OptionError, parse, settle
from detlab.errors import ConfigError
from detlab.system.text import complain, write_lines

USAGE = "detlab benchmark target=step"

TARGETS = {
    "step": "time of a training step, and where it goes",
    "inference": "time of a detection, images as they come",
    "loader": "images per second of decode, augment and collate",
    "data": "opening a large data set, reading it, and the memory of workers",
    "metrics": "time of COCO AP over a validation set",
    "memory": "peak memory of a training step",
    "scaling": "growth of time and memory with batch, side, boxes and classes",
    "footprint": "operations, waits and memory of a step on a GPU that is not there",
}


def main(arguments: Sequence[str]) -> None:
    """Run one target and print its measurements."""
    if any(a in ("-h", "--help") for a in arguments):
        write_lines([usage()])
        return
    given = parse(arguments)
    target = given.pop("target", "step")
    into = given.pop("json", None)
    run = find_target(target)
    result = run(**settle(run, given))
    if into is not None:
        Path(into).write_text(json.dumps({"target": target, **result}, indent=1) + "\n")
        print(f"json {into}")
    if "ratio" in result:
        print(f"ratio {result['ratio']:.3f}")


def find_target(target: str) -> Callable[..., dict[str, Any]]:
    """The `run` of a target.

    Raises:
        OptionError: the target is unknown.
    """
    if target not in TARGETS:
        raise OptionError(f"target={target} is not known; use one of {', '.join(TARGETS)}.")
    return import_module(f"detlab.benchmark.{target}").run


def usage() -> str:
    """The help text: targets with their options and defaults."""
    lines = ["usage: detlab benchmark target=TARGET [KEY=VALUE ...] [json=FILE]", ""]
    for name, text in TARGETS.items():
        lines.append(f"  {name:10} {text}")
        try:
            parameters = inspect.signature(find_target(name)).parameters.values()
            options = " ".join(f"{p.name}={_shown(p.default)}" for p in parameters)
        except ImportError as error:  # metrics needs more than torch, torchvision and lightning
            options = f"(needs {error.name})"
        lines.append(f"             {options}")
    return "\n".join(lines)


def _shown(value: Option) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def start(arguments: Sequence[str]) -> int:
    """Run a target; returns the exit status: 2 after a mistake of the user, which is reported in one sentence."""
    try:
        main(arguments)
    except (OptionError, ConfigError) as mistake:
        complain(mistake)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
