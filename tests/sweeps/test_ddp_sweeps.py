"""Sweeps whose jobs are DDP runs of their own: what hangs, or trains different configs together, under Hydra's own
launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = [
    "debug=fast",
    "trainer=ddp_cpu",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 8, val: 4, test: 4}",
    "data.batch_size=2",
    "model.neck.width=32",
    "model.head.width=32",
    "model.head.depth=1",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("swept", "processes"), [("trainer.devices=2,1,2", [2, 1, 2]), ("seed=shuffle(1,2,3)", [2, 2, 2])]
)
def test_every_job_is_one_run_of_one_config(swept: str, processes: list[int], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "detlab.commands.train",
        "-m",
        *SMALL,
        swept,
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    folders = [tmp_path / "sweep" / name for name in "012"]
    status = [json.loads((folder / "status.json").read_text()) for folder in folders]
    assert [s["state"] for s in status] == ["finished"] * 3
    assert [s["processes"] for s in status] == processes
    jobs = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["jobs"]
    for folder, job, told in zip(folders, jobs, status, strict=True):
        said = (folder / "job.log").read_text()
        assert ("MEMBER: 2/2" in said) == (job["processes"] == 2)
        assert told.get("config_hash", job["hash"]) == job["hash"]
    assert [p.name for p in tmp_path.iterdir()] == ["sweep"]  # no rank swept on its own
