"""The page of a sweep that grows until it is decided has the verdicts of the looks at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detlab.report.analysis import Analysis
from detlab.report.answers import command
from detlab.report.effects import main_effects
from detlab.report.page import method
from detlab.report.planned import FILE, Plan, read_plan, write_plan
from detlab.report.rounds import looks
from detlab.report.rows import make_sweep
from detlab.report.runs import find_runs
from tests.report.folders import write_run

PLAN = Plan((0, 1, 2, 3), 2)


def sweep(folder: Path, plan: Plan | None, **values: list[float]) -> Analysis:
    """A row per argument with a run for each of its values; images count as fixed."""
    for neck, of_row in values.items():
        for seed, value in enumerate(of_row):
            write_run(folder / f"{neck}{seed}", [f"model/neck={neck}", f"seed={seed}", "ablation=neck"], value=value)
    write_plan(folder, plan)
    runs = find_runs([folder])
    return Analysis(make_sweep(runs), plan=read_plan(runs))


def test_verdicts_of_the_page_are_those_of_the_looks(tmp_path: Path) -> None:
    rows = {"base": [0.3, 0.31, 0.32], "near": [0.335, 0.345, 0.355], "same": [0.3, 0.32, 0.32]}
    assert [c and c.verdict for c in sweep(tmp_path / "a", None, **rows).differences()] == [None, "better", "undecided"]
    found = sweep(tmp_path / "b", PLAN, **rows)
    seen = found.differences()
    assert tuple(c.verdict for c in seen if c) == looks(list(rows.values()), None, 4)[-1].verdicts
    assert [c and c.verdict for c in seen] == [None, "undecided", "undecided"]
    assert seen[1] is not None
    assert seen[1].seeds_needed == 4
    assert [e.contrast and e.contrast.verdict for e in main_effects(found)] == ["undecided", "undecided"]
    assert "after each seed from 2 to 4" in method(found)


def test_no_verdict_before_the_first_look(tmp_path: Path) -> None:
    rows = {"base": [0.3, 0.3001], "far": [0.9, 0.9001]}
    found = sweep(tmp_path, Plan((0, 1, 2, 3, 4, 5), 3), **rows)
    assert [c and c.verdict for c in found.differences()] == [None, "undecided"]
    assert "min_seeds=3 max_seeds=6" in command(found)


def test_a_row_that_was_decided_stays_so(tmp_path: Path) -> None:
    rows = {"base": [0.3, 0.3001, 0.6, 0.1], "far": [0.9, 0.9001], "same": [0.3, 0.3002, 0.5, 0.2]}
    found = sweep(tmp_path, PLAN, **rows)
    assert [c and c.verdict for c in found.differences()] == [None, "better", "undecided"]


@pytest.mark.parametrize("text", ["[]", "{", '{"seeds": [0, "1"], "first": 2}', '{"seeds": [0, 0], "first": 2}', "{}"])
def test_a_damaged_plan_is_none(tmp_path: Path, text: str) -> None:
    sweep(tmp_path, PLAN, base=[0.1, 0.2])
    assert read_plan(find_runs([tmp_path])) == PLAN
    (tmp_path / FILE).write_text(text)
    assert read_plan(find_runs([tmp_path])) is None


def test_a_plan_is_removed_by_a_command_without_looks(tmp_path: Path) -> None:
    write_plan(tmp_path / "nowhere", PLAN)
    write_plan(tmp_path, PLAN)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    write_plan(tmp_path, None)
    write_plan(tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_the_level_is_at_most_that_of_one_look() -> None:
    levels = [PLAN.level(seeds, 3, 0.95) for seeds in (0, 2, 3, 4, 9)]
    assert levels[0] == levels[1]
    assert levels[3] == levels[4]
    assert np.all(np.diff(levels[1:4]) < 0)
    assert levels[3] > 0.95
