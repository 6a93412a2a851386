"""A job as a new process in its own process group."""

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
NOT_INHERITED = (  # variables of another run: ranks of its process group, ids of its loggers
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
    "HYDRA_FULL_ERROR",  # set by this command; it would turn a job's one-sentence error into a traceback
)


def job_environment(job: Job, sweep: str, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without NOT_INHERITED, plus the variables that describe the sweep."""
    kept = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    return {**kept, SWEEP_ENV: sweep, CHOICES_ENV: json.dumps(job.choices), **extra}


def launcher_environment() -> dict[str, str]:
    """Environment of a launcher that this process starts; the launcher ends its jobs when this process dies."""
    return {**os.environ, LAUNCHER_ENV: str(os.getpid())}


def job_command(job: Job, *, module: str, flags: Sequence[str], resume: bool) -> list[str]:
    """The command of a job: a single run in its own folder, even if the config sets MULTIRUN."""
    more = ["resume=true"] if resume else []
    place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(job.folder)}"]
    return [sys.executable, "-m", module, *flags, *job.overrides, *more, *place]


def quoted(path: Path) -> str:
    """A path quoted as a Hydra value."""
    text = str(path)
    return (
        text
        if all(c.isascii() and (c.isalnum() or c in "/._-") for c in text)
        else "'" + text.replace("'", "\\'") + "'"
    )


class Process:
    """A running job.

    Args:
        job: the job; its folder holds the log.
        environment: complete environment of the process.
        cwd: working directory.
        keep_open: file descriptors that the process inherits (the sweep's lock).
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
            start_new_session=True,  # Ctrl-C reaches only the launcher, which then ends each process group
            pass_fds=tuple(descriptor for descriptor in keep_open if descriptor >= 0),
        )

    def poll(self) -> int | None:
        """The exit status; None while it runs. A process that ignores its signal for `grace` seconds is killed."""
        code = self._popen.poll()
        if code is None:
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._signal(signal.SIGKILL)
            return None
        if not self._log.closed:
            self._signal(signal.SIGKILL)  # remaining processes of its group: other ranks, loader workers
            self._log.close()
        return code

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """Signal the whole group and kill it after `grace` seconds; a second call can only make that earlier."""
        kill_at = time.monotonic() + grace
        if self._kill_at is None or kill_at < self._kill_at:
            self._kill_at = kill_at
            self._signal(sent)

    def _signal(self, sent: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, sent)


def end_with_parent() -> None:
    """In a job of a sweep: ask the kernel for SIGTERM when the launcher dies, even by kill -9.

    Only Linux supports this; elsewhere the jobs of a killed launcher continue to run.
    """
    if LAUNCHER_ENV in os.environ and first_rank() is None:
        signal_at_parents_death(signal.SIGTERM)
