"""A job as a fresh process in a process group of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from detlab.sweeps.job import LOG, Job
from detlab.system.parent import FIRST_ENV, first_rank, signal_at_parents_death

LAUNCHER_ENV, SWEEP_ENV, CHOICES_ENV = "DETLAB_LAUNCHER", "DETLAB_SWEEP", "DETLAB_CHOICES"
NOT_INHERITED = (  # a rank's place in some other group, and a run's identity
    "LOCAL_RANK",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    FIRST_ENV,
    "PL_GLOBAL_SEED",
    "WANDB_RUN_ID",
    "HYDRA_FULL_ERROR",  # set while this command runs: a job's mistake would end in a traceback, as if it could mend
)


def job_environment(job: Job, sweep: str, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what a job must not inherit, and with what tells a job of its sweep."""
    kept = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    return {**kept, SWEEP_ENV: sweep, CHOICES_ENV: json.dumps(job.choices), **extra}


def launcher_environment() -> dict[str, str]:
    """For a launcher that this process starts: it ends its jobs in order when this process dies."""
    return {**os.environ, LAUNCHER_ENV: str(os.getpid())}


def job_command(job: Job, *, module: str, flags: Sequence[str], resume: bool) -> list[str]:
    """The command of a job: one run, in its own folder, whatever mode the config asks for."""
    more = ["resume=true"] if resume else []
    place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(job.folder)}"]
    return [sys.executable, "-m", module, *flags, *job.overrides, *more, *place]


def quoted(path: Path) -> str:
    """A path as a Hydra value."""
    text = str(path)
    return text if all(c.isalnum() or c in "/._-" for c in text) else "'" + text.replace("'", "\\'") + "'"


class Process:
    """A running job.

    Args:
        job: its folder takes the log.
        environment: whole.
        cwd: where it runs.
        keep_open: file descriptors that it holds while it lives (the sweep's lock).
        log: name of the log in the folder.
    """

    def __init__(
        self,
        job: Job,
        *,
        environment: Mapping[str, str],
        cwd: Path,
        keep_open: Sequence[int] = (),
        log: str = LOG,
    ) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        self._log = (job.folder / log).open("a")
        self._log.write(f"$ {shlex.join(job.command)}\n")
        self._log.flush()
        self._kill_at: float | None = None
        self._popen = subprocess.Popen(
            job.command,
            env={**environment, LAUNCHER_ENV: str(os.getpid())},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which then ends each group in order
            pass_fds=tuple(descriptor for descriptor in keep_open if descriptor >= 0),
        )

    def poll(self) -> int | None:
        """The exit status, or None while it runs; a process that ignored its signal for too long is killed."""
        code = self._popen.poll()
        if code is None:
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._signal(signal.SIGKILL)
            return None
        if not self._log.closed:
            self._signal(signal.SIGKILL)  # what it left of its group: other ranks, loader workers
            self._log.close()
        return code

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """Signal the whole group; after `grace` seconds it is killed. A second call may only hasten that."""
        kill_at = time.monotonic() + grace
        if self._kill_at is None or kill_at < self._kill_at:
            self._kill_at = kill_at
            self._signal(sent)

    def _signal(self, sent: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, sent)


def end_with_parent() -> None:
    """In a sweep's job: ask the kernel for SIGTERM when the launcher dies, even by kill -9.

    Linux alone has this; elsewhere jobs of a launcher that was killed hard run on to their end.
    """
    if LAUNCHER_ENV in os.environ and first_rank() is None:
        signal_at_parents_death(signal.SIGTERM)
