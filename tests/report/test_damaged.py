"""Small files of a run folder with other shapes than theirs: the run is read with what is left, or named as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from detlab.report.runs import read_run
from detlab.runs.resuming import read_status
from detlab.sweeps.job import read_progress
from detlab.system.files import read_facts

SHAPES = ("", "{", "3", "[]", '"text"', "null", '{"metrics": 3, "monitor": null, "state": null}', "[{}]")
FILES = ("status.json", "job.json", "result.json", "budget.json", ".hydra/hydra.yaml", ".hydra/overrides.yaml")


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_as_good_as_none(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 3\n")
    (tmp_path / name).write_text(text)
    run = read_run(tmp_path)
    assert run.seed == 3
    assert run.metrics == {}
    assert read_progress(tmp_path).best is None
    assert isinstance(read_status(tmp_path), dict)
    assert isinstance(read_facts(tmp_path / name), dict)


@pytest.mark.parametrize("seed", ["abc", "[1]", "null", "1.5"])
def test_a_damaged_seed_is_0(seed: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(f"seed: {seed}\n")
    assert read_run(tmp_path).seed == 0
