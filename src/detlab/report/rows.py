"""Arrange runs as a table: one row per combination of choices, one run per seed; missing runs are cells too."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from detlab.config.overrides import short_names
from detlab.report.runs import ReportError, Run, numbers, setting

STUDY = "optuna.db"  # in the folder of a search


@dataclass
class Row:
    """One combination of choices."""

    choices: dict[str, str]  # {factor: level}
    runs: dict[int, Run] = field(default_factory=dict)  # {seed: run}

    @property
    def done(self) -> dict[int, Run]:
        """{seed: run} of the runs with a result."""
        return {seed: run for seed, run in self.runs.items() if run.done}

    def values(self, metric: str) -> np.ndarray:
        """Values of a metric over all runs that have it."""
        return np.array([run.metrics[metric] for run in self.done.values() if metric in run.metrics])


@dataclass
class Sweep:
    """All rows with their factors and seeds."""

    factors: dict[str, list[str]]  # {key: levels in order of appearance}
    seeds: list[int]
    rows: list[Row]
    baseline: int = 0
    metric: str = "map"
    repeats: list[Run] = field(default_factory=list)  # runs left out: another run has their choices and seed

    @property
    def names(self) -> dict[str, str]:
        """Short names of the factors."""
        return short_names(list(self.factors))

    def label(self, row: Row) -> str:
        """A row as text."""
        names = self.names
        return " · ".join(f"{names[key]} {level}" for key, level in row.choices.items()) or "all runs"

    @property
    def base(self) -> Row:
        """The baseline."""
        return self.rows[self.baseline]


def make_sweep(runs: Sequence[Run], baseline: str = "", metric: str = "") -> Sweep:
    """Group runs into rows.

    Args:
        runs: runs of one or more sweeps.
        baseline: choices such as "model/neck=none"; the first row with them is the baseline. "": the first row with
            results.
        metric: key in result.json; "": map, or ar_300 for proposals.

    Raises:
        ReportError: no row has the baseline's choices, or the metric.
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    table = {key: [setting(run, key) for run in runs] for key in keys}
    factors = {key: list(dict.fromkeys(levels)) for key, levels in table.items() if len(set(levels)) > 1}
    seeds = sorted({run.seed for run in runs})
    rows: dict[tuple[str, ...], Row] = {}
    repeats: list[Run] = []
    for i, run in enumerate(runs):
        place = tuple(table[key][i] for key in factors)
        row = rows.setdefault(place, Row(dict(zip(factors, place, strict=True))))
        if run.seed not in row.runs or (run.done and not row.runs[run.seed].done):
            row.runs[run.seed] = run
        elif run.done:
            repeats.append(run)
    if not of_a_search(runs):
        _add_missing(rows, factors)
    sweep = Sweep(factors, seeds, [rows[p] for p in sorted(rows, key=lambda p: _order(p, factors))], repeats=repeats)
    known = {name for run in runs for name in run.metrics}
    sweep.metric = metric.removeprefix("test/") or _answer(runs) or ("map" if "map" in known or not known else "ar_300")
    if known and sweep.metric not in known:
        option = f"metric={metric}" if metric else f"answer=test/{sweep.metric}"
        raise ReportError(f"{option} is in no result; give metric=NAME, one of {', '.join(sorted(known))}.")
    sweep.baseline = _find_baseline(sweep, baseline)
    return sweep


def of_a_search(runs: Sequence[Run]) -> bool:
    """Whether a search drew the runs, whose combinations of choices are no grid."""
    return any((folder / STUDY).is_file() for folder in {run.folder.parent for run in runs})


def left_out(sweep: Sweep) -> list[str]:
    """Sentences about results that the tables do not show."""
    said = []
    if sweep.repeats:
        count = len(sweep.repeats)
        have, are = ("run has", "is") if count == 1 else ("runs have", "are")
        said.append(
            f"{count} finished {have} the choices and the seed of another run and {are} left out: "
            f"{_some([str(run.folder) for run in sweep.repeats])}. Give only one of the folders."
        )
    odd = [f"{name} in {run.folder}" for row in sweep.rows for run in row.runs.values() for name in run.odd]
    if odd:
        said.append(f"{len(odd)} entries of result.json are no finite number and are left out: {_some(odd)}.")
    return said


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _answer(runs: Sequence[Run]) -> str:
    """The metric named by `answer` in the runs' configs; "" if they name none or several."""
    named = {str(run.config.get("answer") or "") for run in runs if run.config}
    return named.pop().removeprefix("test/") if len(named) == 1 else ""


def paper_table(sweep: Sweep) -> tuple[str, dict[int, float]]:
    """(name of a paper's table, {row: published value}) from `paper` in the runs' configs; ("", {}) without one."""
    runs = [run for row in sweep.rows for run in row.runs.values() if run.config]
    told = [run.config.get("paper") for run in runs]
    paper = told[0] if told and all(each == told[0] for each in told) else None
    if not isinstance(paper, dict) or not isinstance(paper.get("values"), dict):
        return "", {}
    values = {str(level): float(value) for level, value in numbers(paper["values"]).items()}
    found = {}
    for i, row in enumerate(sweep.rows):
        named = [values[level] for level in row.choices.values() if level in values]
        if len(named) == 1:
            found[i] = named[0]
    return str(paper.get("table") or "the paper"), found


def _add_missing(rows: dict[tuple[str, ...], Row], factors: dict[str, list[str]]) -> None:
    """Add empty rows for missing combinations if the runs cover at least half of the full grid."""
    if len(rows) >= math.prod(map(len, factors.values())) / 2:  # counted first: a random search has a huge grid
        for place in itertools.product(*factors.values()):
            rows.setdefault(place, Row(dict(zip(factors, place, strict=True))))


def _order(place: tuple[str, ...], factors: dict[str, list[str]]) -> tuple[int, ...]:
    return tuple(levels.index(level) for level, levels in zip(place, factors.values(), strict=True))


def _find_baseline(sweep: Sweep, wanted: str) -> int:
    pairs = dict(part.partition("=")[::2] for part in wanted.split(",") if part)
    names = {short_name: key for key, short_name in sweep.names.items()}
    pairs = {names.get(key, key): value for key, value in pairs.items()}
    for i, row in enumerate(sweep.rows):
        if row.done and all(row.choices.get(key) == value for key, value in pairs.items()):
            return i
    if wanted:
        levels = "; ".join(f"{key}: {', '.join(levels)}" for key, levels in sweep.factors.items())
        raise ReportError(f"baseline={wanted} has no run with a result; swept are {levels or 'seeds alone'}.")
    return 0


def command_of(row: Row) -> str:
    """The command that repeats all seeds of a row."""
    run = next(iter(row.runs.values()), None)
    overrides = dict(run.overrides) if run else dict(row.choices)
    words = [f"{key}={value}" for key, value in overrides.items()]
    seeds = ",".join(str(seed) for seed in sorted(row.runs)) if row.runs else "0"
    many = ["-m"] if "," in seeds else []
    return shlex.join(["detlab", "train", *many, *words, f"seed={seeds}"])
