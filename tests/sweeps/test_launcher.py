"""The default launcher on a toy application: what runs, what is skipped, what fails, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def begin(cwd: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.toy", "-m", f"hydra.searchpath=[file://{REPOSITORY}/conf]", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sweep(cwd: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = begin(cwd, *arguments, **environment)
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def folder_of(cwd: Path) -> Path:
    (found,) = (cwd / "out").iterdir()
    return found


def jobs(cwd: Path) -> list[dict[str, Any]]:
    return json.loads((folder_of(cwd) / "sweep.json").read_text())["jobs"]


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json").read_text())


def wait_for(condition: Any, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_each_job_is_a_fresh_process_with_its_folder_share_and_clean_environment(tmp_path: Path) -> None:
    code, said = sweep(
        tmp_path, "x=1,2", "seed=7", "hydra.launcher.n_jobs=2", "hydra.launcher.threads=3", RANK="1", MASTER_PORT="9"
    )
    assert code == 0, said
    seen = [facts(folder_of(tmp_path) / name) for name in "01"]
    assert seen[0]["pid"] != seen[1]["pid"]
    name = folder_of(tmp_path).name
    assert name.startswith("x-")
    assert seen[0]["env"] == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "", "DETLAB_SWEEP": name}
    assert seen[1]["argv"][-4:] == ["x=2", "seed=7", "hydra.mode=RUN", f"hydra.run.dir={folder_of(tmp_path) / '1'}"]
    assert [(j["state"], j["choices"], j["value"]) for j in jobs(tmp_path)] == [
        ("done", {"x": "1"}, 0.12),
        ("done", {"x": "2"}, 0.22),
    ]
    assert "detlab report" in said


def test_a_failed_job_is_recorded_and_the_others_go_on_and_a_rerun_takes_up_what_failed(tmp_path: Path) -> None:
    code, said = sweep(tmp_path, "x=1,2", "do=raise,finish", "hydra.launcher.n_jobs=4")
    assert code == 1
    assert [j["state"] for j in jobs(tmp_path)] == ["failed", "done", "failed", "done"]
    first = jobs(tmp_path)[0]
    assert first["reason"] == "RuntimeError: broken by x=1"
    assert "Traceback (most recent call last)" in first["traceback"]
    assert "RuntimeError: broken by x=1" in said
    kept = facts(folder_of(tmp_path) / "1")["pid"]
    code, said = sweep(tmp_path, "do=raise,finish", "x=1,2", "hydra.launcher.n_jobs=4")  # the order does not matter
    assert code == 1
    assert "2 to run, 2 done before" in said
    assert facts(folder_of(tmp_path) / "1")["pid"] == kept
    assert sorted(p.name for p in (folder_of(tmp_path) / "failed").iterdir()) == ["0-1", "2-1"]


def test_a_job_is_known_by_its_config_not_by_its_place(tmp_path: Path) -> None:
    fixed = f"hydra.sweep.dir={tmp_path / 'out' / 'mine'}"
    assert sweep(tmp_path, "x=1,2", fixed)[0] == 0
    kept = [facts(folder_of(tmp_path) / name)["pid"] for name in "01"]
    code, said = sweep(tmp_path, "x=3,2,1,2", fixed)  # one new, two known, and one that stands twice
    assert code == 0
    assert "2 to run, 2 done before" in said
    assert [facts(folder_of(tmp_path) / name)["pid"] for name in "01"] == kept
    assert [j["choices"]["x"] for j in jobs(tmp_path)] == ["1", "2", "3", "2"]


def test_retries_and_time_limit(tmp_path: Path) -> None:
    code, _ = sweep(tmp_path, "do=flaky,finish", "hydra.launcher.retries=1")
    assert code == 0
    assert [(j["state"], j["tries"]) for j in jobs(tmp_path)] == [("done", 2), ("done", 1)]
    assert (folder_of(tmp_path) / "failed" / "0-1" / "job.log").is_file()
    other = tmp_path / "other"
    other.mkdir()
    code, _ = sweep(other, "do=sleep,finish", "hydra.launcher.timeout=10", "hydra.launcher.grace=2")
    assert code == 1
    assert [j["state"] for j in jobs(other)] == ["timeout", "done"]
    assert "hydra.launcher.timeout=10" in jobs(other)[0]["reason"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_no_process_and_the_same_command_goes_on(how: int, tmp_path: Path) -> None:
    command = ["do=finish,checkpoint,sleep", "hydra.launcher.n_jobs=3", "hydra.launcher.grace=5"]
    process = begin(tmp_path, *command)
    wait_for(lambda: len(list(tmp_path.glob("out/*/[12]/facts.json"))) == 2 and list(tmp_path.glob("out/*/0/job.json")))
    wait_for(lambda: list(tmp_path.glob("out/*/1/checkpoints/last.ckpt")))
    wait_for(lambda: json.loads(next(tmp_path.glob("out/*/0/job.json")).read_text())["state"] == "done")
    pids = [facts(folder_of(tmp_path) / name)["pid"] for name in "12"]
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (130 if how != signal.SIGKILL else -9)
    wait_for(lambda: not any(alive(pid) for pid in pids))
    (tmp_path / "go").touch()
    code, said = sweep(tmp_path, *command)
    assert "2 to run, 1 done before" in said
    assert [j["state"] for j in jobs(tmp_path)] == ["done", "done", "done"]
    assert "resume=true" in facts(folder_of(tmp_path) / "1")["argv"]  # it had a checkpoint
    assert "resume=true" not in facts(folder_of(tmp_path) / "2")["argv"]
    assert code == 0


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    process = begin(tmp_path, "do=sleep,finish", "hydra.launcher.grace=2")
    wait_for(lambda: list(tmp_path.glob("out/*/0/facts.json")))
    code, said = sweep(tmp_path, "do=sleep,finish")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert code == 2
    assert "is being worked on by another command" in said


def test_jobs_wait_for_their_gpus(tmp_path: Path) -> None:
    """Without a GPU: the slots are ids, and the toy never touches them."""
    code, _ = sweep(
        tmp_path, "trainer.devices=1,2,1,3", "trainer.accelerator=gpu", "hydra.launcher.gpus=[4,5]",
    )  # fmt: skip
    assert code == 1
    assert [j["state"] for j in jobs(tmp_path)] == ["done", "done", "done", "refused"]
    assert facts(folder_of(tmp_path) / "1")["env"]["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert "needs 3 GPUs" in jobs(tmp_path)[3]["reason"]
