"""The cluster launcher through submitit's local executor: same jobs, requeue with resume, DDP inside a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detlab.sweeps.cluster import ClusterHandle, NodeTask
from detlab.sweeps.job import Job
from tests.sweeps.test_ddp_sweeps import SMALL
from tests.sweeps.test_launcher import REPOSITORY, facts, folder_of, jobs, sweep, wait_for

submitit = pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
LOCAL = ("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.resources.gpus_per_node=0")


def test_jobs_through_submitit_are_the_same_jobs(tmp_path: Path) -> None:
    code, said = sweep(tmp_path, *LOCAL, "x=1,2", "do=raise,finish", "hydra.launcher.threads=2")
    assert code == 1, said
    assert [j["state"] for j in jobs(tmp_path)] == ["failed", "done", "failed", "done"]
    assert jobs(tmp_path)[0]["reason"] == "RuntimeError: broken by x=1"
    assert facts(folder_of(tmp_path) / "1")["env"]["OMP_NUM_THREADS"] == "2"
    code, said = sweep(tmp_path, "x=1,2", "do=raise,finish")  # the other launcher goes on with the same sweep
    assert "2 to run, 2 done before" in said


def test_a_preempted_job_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]))
    folder = tmp_path / "0"
    search = f"hydra.searchpath=[file://{REPOSITORY}/conf]"
    command = [sys.executable, "-m", "tests.sweeps.toy", search, "do=checkpoint", f"hydra.run.dir={folder}"]
    job = Job(number=0, folder=folder, overrides=[], choices={}, hash="", command=command)
    executor = submitit.AutoExecutor(tmp_path / "submitit" / "%j", cluster="local")
    executor.update_parameters(timeout_min=30)
    submitted = executor.submit(NodeTask(job, "name", tmp_path, None))
    handle = ClusterHandle(submitted, folder)
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").is_file())
    assert handle.poll() is None
    os.kill(facts(folder)["parent"], signal.SIGUSR2)  # SLURM's notice, at the task
    wait_for(lambda: handle.poll() is not None)
    assert handle.poll() == 0
    assert "resume=true" in facts(folder)["argv"]


def test_tasks_that_would_be_runs_of_their_own_are_refused(tmp_path: Path) -> None:
    code, said = sweep(tmp_path, *LOCAL, "x=1,2", "hydra.launcher.resources.tasks_per_node=2")
    assert code == 2, said
    assert "use hydra.launcher.resources.tasks_per_node=1" in said
    assert not list((tmp_path / "out").rglob("facts.json"))


@pytest.mark.slow
def test_a_job_of_two_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "detlab.commands.train", "-m", *SMALL, *LOCAL, "seed=0,1",
         f"hydra.sweep.dir={tmp_path / 's'}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for name in "01":
        status = json.loads((tmp_path / "s" / name / "status.json").read_text())
        assert (status["state"], status["processes"]) == ("finished", 2)
