"""`hydra/launcher=processes`: every job of a sweep is a new process on this machine.

Hydra's own launcher runs jobs inside the launching process. Lightning's DDP then starts its other ranks by running
that command again, including -m, so each rank would start a sweep of its own (Lightning issue 2727, Hydra issue 2070).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from detlab.system.text import complain
from hydra_plugins.detlab_launcher.end import SweepEnd

if TYPE_CHECKING:
    from detlab.sweeps import Feed, Job
    from detlab.sweeps.pool import Handle
    from hydra_plugins.detlab_launcher._planning import Sweep


class ProcessLauncher(Launcher):
    """Runs jobs in parallel as processes; see conf/hydra/launcher/processes.yaml for the options.

    Args:
        n_jobs: jobs that run at once; None: one per GPU, one on a CPU.
        gpus: ids of GPUs that the sweep may use; None: all visible ones.
        jobs_per_gpu: number of jobs that may share a GPU.
        threads: CPU threads per process; None: an equal share of the cores.
        timeout: time limit of a job in seconds; None: no limit.
        retries: further attempts for a failed job.
        grace: seconds between the signal that ends a job and kill.
    """

    def __init__(
        self,
        *,
        n_jobs: int | None,
        gpus: Sequence[int | str] | None,
        jobs_per_gpu: int,
        threads: int | None,
        timeout: float | None,
        retries: int,
        grace: float,
    ) -> None:
        from detlab.errors import ConfigError
        from detlab.sweeps.options import seconds, shown, whole

        at = "hydra.launcher."
        if gpus is not None and (isinstance(gpus, str) or not isinstance(gpus, Sequence) or not gpus):
            raise ConfigError(f"{at}gpus={shown(gpus)} must be a list of ids such as [0,1], or null for all.")
        self.n_jobs = whole(f"{at}n_jobs", n_jobs, least=1, none="one per GPU, one on a CPU")
        self.jobs_per_gpu = whole(f"{at}jobs_per_gpu", jobs_per_gpu, least=1) or 1
        self.threads = whole(f"{at}threads", threads, least=1, none="an equal share of the cores")
        self.timeout = seconds(f"{at}timeout", timeout, none="no limit")
        self.retries = whole(f"{at}retries", retries, least=0) or 0
        self.grace = seconds(f"{at}grace", grace, zero=True) or 0.0
        self.gpu_ids = gpus

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.loader, self.config = hydra_context.config_loader, config
        callbacks = getattr(hydra_context.callbacks, "callbacks", ())
        self.ends = [callback for callback in callbacks if isinstance(callback, SweepEnd)]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs. A failed job returns None and the sweep continues; SweepEnd sets the exit status."""
        from detlab.sweeps import ListFeed
        from detlab.sweeps.job import choices_of

        sweep = self.sweep()

        def feed() -> Feed:
            # Compared with all jobs of the folder: a command that only adds a seed would otherwise not show the seed.
            choices = choices_of([*job_overrides, *sweep.record.overrides()])[: len(job_overrides)]
            jobs = [self.plan(sweep, o, c) for o, c in zip(job_overrides, choices, strict=True)]
            return ListFeed([job for job in jobs if not job.earlier and job.state != "refused"])

        self.serve(sweep, feed)
        done = JobStatus.COMPLETED
        return [
            JobReturn(overrides=job.overrides, working_dir=str(job.folder), status=done, _return_value=job.value)
            for job in sweep.record.jobs
        ]

    def plan(self, sweep: Sweep, overrides: Sequence[str], choices: Mapping[str, str]) -> Job:
        """The job with these overrides, and the number of GPUs that this launcher must assign to it."""
        job = sweep.job(overrides, choices)
        job.gpus = self.gpus_of(job)
        return job

    def gpus_of(self, job: Job) -> int:
        """Number of GPUs that the job's trainer needs."""
        return job.gpus

    def sweep(self) -> Sweep:
        """The sweep of this command's folder."""
        from detlab.sweeps import SweepRecord
        from hydra_plugins.detlab_launcher._planning import Sweep

        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        return Sweep(self.config, self.loader, SweepRecord(folder, _command()))

    def serve(self, sweep: Sweep, make_feed: Any) -> None:
        """Run the jobs of a feed, which is created after the sweep's folder is locked; Ctrl-C and SIGTERM end the jobs.

        Raises:
            SystemExit: status 130 after Ctrl-C or SIGTERM, 2 if another command holds the folder.
        """
        from detlab.sweeps import Pool
        from detlab.sweeps.record import SweepBusyError
        from detlab.sweeps.slots import GpuSlots, visible_gpus
        from detlab.sweeps.table import SweepTable

        record = sweep.record
        for end in self.ends:
            end.records.append(record)
        # SIGINT too: a shell that starts a command in the background makes it ignore SIGINT.
        earlier = {s: signal.signal(s, signal.default_int_handler) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with record.locked() as lock, SweepTable(record.jobs) as table:
                feed = make_feed()
                self._say(record.jobs, sweep.folder)
                record.write()

                def changed(job: Job) -> None:
                    job.write()
                    record.write()
                    table.changed(job)

                for job in record.jobs:
                    if job.state == "refused":
                        changed(job)
                ids = visible_gpus() if self.gpu_ids is None else [str(i) for i in self.gpu_ids]
                Pool(
                    start=lambda job, gpus, resume: self.start(sweep, job, gpus, resume, lock),
                    changed=changed,
                    tick=table.tick,
                    n_jobs=self.n_jobs,
                    gpus=GpuSlots(ids, self.jobs_per_gpu),
                    retries=self.retries,
                    timeout=self.timeout,
                    grace=self.grace,
                ).run(feed)
        except SweepBusyError as error:
            complain(error)
            sys.exit(2)
        except KeyboardInterrupt:
            complain("interrupted; the same command goes on from here.")
            sys.exit(130)
        finally:
            for sent, handler in earlier.items():
                signal.signal(sent, handler)

    def start(self, sweep: Sweep, job: Job, gpus: list[str], resume: bool, lock: int) -> Handle:
        """Start a job as a process."""
        from detlab.sweeps import Process
        from detlab.sweeps.process import job_command, job_environment

        if not resume:
            sweep.record.set_aside(job)
        job.command = job_command(job, module=module_run(), flags=sweep.flags(), resume=resume)
        threads = self._threads(job)
        extra = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {}
        if gpus:
            extra["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        environment = job_environment(job, sweep.folder.name, extra)
        return Process(job, environment=environment, cwd=Path.cwd(), keep_open=[lock])

    def _threads(self, job: Job) -> int | None:
        """Threads per process: the `threads` option, or an equal share of the cores."""
        from detlab.sweeps.slots import thread_share

        at_once = self.n_jobs or (max(1, len(self.gpu_ids or ())) if job.gpus else 1)
        if self.threads is not None or at_once * job.processes == 1:
            return self.threads
        return thread_share(at_once, job.processes)

    def _say(self, jobs: Sequence[Job], folder: Path) -> None:
        from detlab.system.printing import say

        waiting = sum(not job.earlier and job.state != "refused" for job in jobs)
        known = sum(job.earlier for job in jobs)
        before = f", {known} done before" if known else ""
        say(f"sweep folder  {folder}")
        if jobs:
            say(f"jobs          {waiting} to run{before}")


def module_run() -> str:
    """The module that this command runs; its jobs run the same module.

    The name after -m is only available in the spec of `__main__`; Hydra's task and HydraConfig contain just `__main__`.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None and spec.name else "detlab.commands.train"


def _command() -> list[str]:
    """The words of this command, to be stored for repetition."""
    return ["python", "-m", module_run(), *sys.argv[1:]]
