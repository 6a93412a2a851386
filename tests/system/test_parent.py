"""A rank that its first one started never outlives it: the kernel is asked before anything slow is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
RANK = "from detlab.system.parent import die_with_first_rank; die_with_first_rank(); print('here', flush=True); "
FIRST = f"""
import os, subprocess, sys, time
os.environ["DETLAB_FIRST"] = str(os.getpid())
rank = subprocess.Popen([sys.executable, "-c", {RANK + "import time; time.sleep(60)"!r}], stdout=subprocess.PIPE)
rank.stdout.readline()
print(rank.pid, flush=True)
time.sleep(60)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}


def gone(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()  # ended, but nobody asked how
    except OSError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a parent's death")
def test_a_rank_dies_with_the_first_one() -> None:
    first = subprocess.Popen([sys.executable, "-c", FIRST], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    rank = int(first.stdout.readline())
    assert not gone(rank)
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 5
    while not gone(rank):
        assert time.monotonic() < end, "the rank lives on"
        time.sleep(0.01)


def test_a_rank_whose_first_one_died_before_it_asked_ends_at_once() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    code = RANK + "raise AssertionError('it went on')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT | {"DETLAB_FIRST": str(dead.pid)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"detlab: rank 0 (process {dead.pid}) ended while this rank started."


def test_the_command_asks_before_its_slow_imports() -> None:
    text = (SRC / "detlab" / "commands" / "train.py").read_text()
    assert text.index("die_with_first_rank()") < text.index("\nimport hydra")


def test_other_processes_are_left_alone() -> None:
    subprocess.run([sys.executable, "-c", RANK], env=ENVIRONMENT, check=True, capture_output=True)
