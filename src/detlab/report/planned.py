"""The looks that `detlab ablate until=decided` takes at a sweep, written in the sweep's folder for its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from detlab.report.runs import Run
from detlab.report.spending import look_level
from detlab.system.files import read_facts, write_whole

FILE = "looks.json"
MOST = 1000  # seeds that a plan may have; a file with more is damaged


@dataclass(frozen=True)
class Plan:
    """Looks after every number of seeds from `first` to all."""

    seeds: tuple[int, ...]  # in the order of adding them
    first: int  # number of seeds at the first look

    def level(self, seeds: int, comparisons: int, level: float) -> float:
        """The `verdict_level` with a number of seeds; before the first look, that of the first."""
        now = min(max(seeds, self.first), len(self.seeds))
        return look_level(now, len(self.seeds), level, comparisons=comparisons, first=self.first)


def write_plan(folder: Path, plan: Plan | None) -> None:
    """Write the plan into a sweep's folder if there is one; None removes the plan of an earlier command."""
    if plan is not None and folder.is_dir():
        write_whole(folder / FILE, json.dumps({"seeds": plan.seeds, "first": plan.first}).encode())
    elif plan is None:
        with suppress(FileNotFoundError):
            (folder / FILE).unlink()


def read_plan(runs: Sequence[Run]) -> Plan | None:
    """The plan of the sweep that holds all runs; None without one, and if the file is damaged."""
    folders = {run.folder.parent for run in runs}
    found = read_facts(folders.pop() / FILE) if len(folders) == 1 else {}
    seeds, first = found.get("seeds"), found.get("first")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or type(first) is not int:
        return None
    return Plan(tuple(seeds), first) if 2 <= first <= len(set(seeds)) == len(seeds) <= MOST else None
