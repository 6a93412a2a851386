"""A job on a cluster through submitit: what runs on the node, and its handle on the submitting machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from detlab.sweeps.job import LOG, Job
from detlab.sweeps.process import Process, job_environment

GRACE = 60.0  # seconds a job has to end after a preemption notice; submitit asks for the notice 90 s ahead
ALIVE = ("PENDING", "RUNNING", "REQUEUED", "CONFIGURING", "COMPLETING", "SUSPENDED")


class NodeTask:
    """Called on a node, once per task: the job's command as a child, with the node's own environment.

    Args:
        job: with its command.
        sweep: name of the sweep.
        cwd: where the command runs.
        threads: OMP_NUM_THREADS of each task.
    """

    def __init__(self, job: Job, sweep: str, cwd: Path, threads: int | None) -> None:
        self.job, self.sweep, self.cwd, self.threads = job, sweep, cwd, threads
        self.requeued = False
        self._process: Process | None = None

    def __call__(self) -> int:
        """The exit status. After a requeue the run goes on from its last checkpoint, or starts again without one."""
        if self.requeued and "resume=true" not in self.job.command:
            self.job.command = [*self.job.command, "resume=true"]
        rank = int(os.environ.get("SLURM_PROCID", 0))
        extra = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        environment = job_environment(self.job, self.sweep, extra)
        log = LOG if rank == 0 else f"job.rank{rank}.log"
        self._process = process = Process(self.job, environment=environment, cwd=self.cwd, log=log)
        return _wait(process)

    def checkpoint(self) -> Any:
        """submitit's hook on preemption or at the time limit: end the child and put this back into the queue."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop(signal.SIGTERM, GRACE)
            _wait(self._process)
        self._process, self.requeued = None, True
        return DelayedSubmission(self)


def _wait(process: Process) -> int:
    while (code := process.poll()) is None:
        time.sleep(0.2)
    return code


class ClusterHandle:
    """A submitted job, polled from where the sweep was started.

    Args:
        submitted: submitit's job.
        folder: of the run, whose log says what the cluster did.
    """

    def __init__(self, submitted: Any, folder: Path) -> None:
        self.submitted, self.folder = submitted, folder

    def poll(self) -> int | None:
        """The worst exit status of the tasks, 1 where the cluster lost the job; None while it waits or runs."""
        if not self.submitted.done():
            return None
        try:
            return max((int(code) for code in self.submitted.results()), key=abs)
        except Exception as error:  # submitit's own, of any kind: cancelled, out of memory, node lost
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("a") as log:
                log.write(f"\njob {self.submitted.job_id} on the cluster: {self.submitted.state}: {error}\n")
            return 1

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """Cancel it."""
        self.submitted.cancel(check=False)
