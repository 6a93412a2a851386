"""Jobs on a cluster through submitit: the task on the node, and its handle on the submitting machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from detlab.sweeps.job import LOG, Job
from detlab.sweeps.process import Process, job_environment

GRACE = 60.0  # seconds for a job to end after a preemption notice; submitit requests the notice 90 s in advance
ALIVE = ("PENDING", "RUNNING", "REQUEUED", "CONFIGURING", "COMPLETING", "SUSPENDED")


class NodeTask:
    """Runs on a node, once per task: starts the job's command as a child process in the node's environment.

    Args:
        job: the job to run.
        sweep: name of the sweep.
        cwd: where the command runs.
        threads: OMP_NUM_THREADS of each task.
    """

    def __init__(self, job: Job, sweep: str, cwd: Path, threads: int | None) -> None:
        self.job, self.sweep, self.cwd, self.threads = job, sweep, cwd, threads
        self.requeued = False
        self._process: Process | None = None

    def __call__(self) -> int:
        """Run the job; returns its exit status. A requeued job resumes from its last checkpoint, if there is one."""
        if self.requeued and "resume=true" not in self.job.command:
            self.job.command = [*self.job.command, "resume=true"]
        rank = int(os.environ.get("SLURM_PROCID", 0))
        extra = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        environment = job_environment(self.job, self.sweep, extra)
        log = LOG if rank == 0 else f"job.rank{rank}.log"
        self._process = process = Process(self.job, environment=environment, cwd=self.cwd, log=log)
        return _wait(process)

    def checkpoint(self) -> Any:
        """submitit's hook at preemption or the time limit: end the child and requeue this task."""
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
    """A submitted job, polled from the machine that runs the sweep.

    Args:
        submitted: submitit's job.
        folder: folder of the run; errors of the cluster are written to its log.
    """

    def __init__(self, submitted: Any, folder: Path) -> None:
        self.submitted, self.folder = submitted, folder

    def poll(self) -> int | None:
        """The worst exit status of the tasks, 1 if the cluster lost the job; None while it waits or runs."""
        if not self.submitted.done():
            return None
        try:
            return max((int(code) for code in self.submitted.results()), key=abs)
        except Exception as error:  # any error of submitit: job cancelled, out of memory, node lost
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("a") as log:
                log.write(f"\njob {self.submitted.job_id} on the cluster: {self.submitted.state}: {error}\n")
            return 1

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """Cancel the job."""
        self.submitted.cancel(check=False)
