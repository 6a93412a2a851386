"""What a command says of a mistake, run in this process: its exit status, its last line, and where that was raised."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from detlab.commands import app
from detlab.config import compose as composing
from detlab.config.places import choices_among, compose_quietly, config_dir

SRC = Path(app.__file__).resolve().parents[1]
RAISED = {  # classes whose texts a user may read
    "BenchmarkError", "ConfigError", "DataError", "DifferentConfigsError", "ImageError", "NonFiniteLossError",
    "OptionError", "ReportError", "SweepBusyError", "ValueError", "WeightsError",
}  # fmt: skip
PLAIN = ("ablate", "benchmark", "compare", "pretrain", "report", "rerun")  # commands without Hydra


class Site(NamedTuple):
    """A place that raises a message."""

    file: str  # below src/detlab
    words: str  # the first words of the text, or the expression that makes it


class Said(NamedTuple):
    """The end of a command."""

    status: int
    line: str  # after "detlab: "
    sites: frozenset[Site]
    errors: str  # all of stderr


@cache
def sites() -> dict[tuple[str, int], Site]:
    """Every place of the package that raises a message, by (file, line); a statement has all of its lines."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        name = str(path.relative_to(SRC))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in RAISED:
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    found[name, line] = Site(name, _words(node.exc))
    return found


def _words(call: ast.Call) -> str:
    """The text of a message as the source has it, shortened."""
    return re.sub(r"\s+", " ", " ".join(ast.unparse(argument) for argument in call.args)).strip("f'\"")[:48]


def raised_at(error: BaseException | None) -> frozenset[Site]:
    """The places that raised an error and those which it was made from."""
    found, chain = set(), []
    while error is not None:
        assert error not in chain, "a chain of causes without an end"
        chain.append(error)
        for frame in traceback.extract_tb(error.__traceback__)[-1:]:
            with contextlib.suppress(ValueError):
                key = str(Path(frame.filename).resolve().relative_to(SRC)), frame.lineno or 0
                found |= {sites()[key]} if key in sites() else set()
        error = error.__cause__
    return frozenset(found)


@cache
def _composed(command: str, choices: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(command, overrides=list(choices), return_hydra_config=True)


@cache
def _shipped(command: str, choices: tuple[str, ...]) -> DictConfig:
    return compose_quietly(command, choices)


def composed(command: str, words: Sequence[str], folder: Path) -> DictConfig:
    """A command's config: groups composed once for all cases that choose the same, values set as Hydra sets them."""
    fixed = [f"paths.run_dir={folder}", *(["name=x"] if command in ("train", "check", "anchors") else [])]
    choices = choices_among(words)
    config = copy.deepcopy(_composed(command, tuple(choices)))
    values = [word for word in [*fixed, *app.open_keys(command, words)] if word not in choices]
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
    config.hydra.overrides.task = list(words)
    HydraConfig.instance().set_config(config)
    return config


@contextlib.contextmanager
def _caught(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What `app.end` was given, and stderr; the process is as before afterwards."""
    got: dict[str, Any] = {"error": None, "status": 0}
    end = app.end

    def spy(error: Exception, name: str, overrides: list[str]) -> None:
        got["error"] = error
        end(error, name, overrides)

    err, out = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with monkeypatch.context() as patch, warnings.catch_warnings():
        patch.setattr(app, "end", spy)
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setenv("DETLAB_FULL_ERROR", "1")
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
            try:
                yield got
            except SystemExit as stop:
                got["status"] = stop.code if isinstance(stop.code, int) else 1
    root.handlers[:], root.level = handlers, level
    got["err"], got["out"] = err.getvalue(), out.getvalue()


def _said(got: dict[str, Any], seen: Sequence[BaseException] = ()) -> Said:
    lines = [line for line in got["err"].splitlines() if re.match(r"detlab( benchmark)?: ", line)]
    places = frozenset().union(raised_at(got["error"]), *(raised_at(error) for error in seen))
    return Said(got["status"], lines[-1].partition(": ")[2] if lines else "", places, got["err"])


def say(command: str, words: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command as far as its mistake; Hydra composes its config, but does not start it."""
    if command in PLAIN:
        return _say_plain(command, words, monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"detlab.commands.{command}", *words])
    monkeypatch.setattr(composing, "compose_quietly", lambda name, choices: _shipped(name, tuple(choices)))
    module = import_module(f"detlab.commands.{command}")
    with _caught(monkeypatch) as got:
        app.run_app(lambda: module.main(composed(command, words, folder)), command)
    return _said(got)


def say_whole(command: str, words: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command with Hydra's own start, its folder below `folder`."""
    module = import_module(f"detlab.commands.{command}")
    GlobalHydra.instance().clear()
    monkeypatch.setenv("DETLAB_OUTPUTS", str(folder))
    monkeypatch.setattr(sys, "argv", [f"detlab.commands.{command}", *words])
    with _caught(monkeypatch) as got:
        app.run_app(module.main, command)
    return _said(got)


def _say_plain(command: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command that takes its arguments itself; its errors are seen where they are made."""
    from detlab.benchmark.options import OptionError
    from detlab.errors import ConfigError
    from detlab.report.runs import ReportError

    places: set[Site] = set()

    def seen(self: BaseException, *arguments: Any) -> None:
        frame = sys._getframe(1)
        with contextlib.suppress(ValueError, KeyError):
            places.add(sites()[str(Path(frame.f_code.co_filename).resolve().relative_to(SRC)), frame.f_lineno])

    module = import_module(f"detlab.commands.{command}")
    with monkeypatch.context() as patch, _caught(monkeypatch) as got:
        for kind in (ConfigError, OptionError, ReportError):
            patch.setattr(kind, "__init__", seen)
        run = module.start if command == "benchmark" else module.main
        got["status"] = run(list(words)) or 0
    return Said(got["status"], _said(got).line, frozenset(places), got["err"])
