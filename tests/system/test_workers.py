"""Worker processes do not outlive a command that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.test_parent import ENVIRONMENT, gone

COMMAND = """
import os, time
from detlab.system.workers import spawned_workers

if __name__ == "__main__":
    with spawned_workers(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60)
        time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_worker_exits_when_its_command_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        command.kill()
    end = time.monotonic() + 10
    while not gone(worker):
        if time.monotonic() > end:
            os.kill(worker, signal.SIGKILL)
            pytest.fail("the worker lives on")
        time.sleep(0.05)
