"""`hydra/launcher=slurm`: the jobs of a sweep on a cluster, through submitit (extra `cluster`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_plugins.detlab_launcher.launcher import ProcessLauncher, module_run

if TYPE_CHECKING:
    from detlab.sweeps import Job
    from detlab.sweeps.pool import Handle
    from hydra_plugins.detlab_launcher._planning import Sweep


class SlurmLauncher(ProcessLauncher):
    """Submits all jobs, shows their progress and waits for them; see conf/hydra/launcher/slurm.yaml for the options.

    Args:
        cluster: slurm, or local to try it on one machine.
        n_jobs: number of jobs in the queue at once.
        retries: further attempts for a failed job.
        max_requeues: how often a job that was preempted or reached its time limit is requeued; it resumes from its last
            checkpoint.
        threads: CPU threads per task; None: cpus_per_task.
        resources: {submitit's name: value} for each job (timeout_min, nodes, slurm_partition ..); None omits an entry.
    """

    def __init__(
        self,
        *,
        cluster: str,
        n_jobs: int,
        retries: int,
        max_requeues: int,
        threads: int | None,
        resources: Mapping[str, Any],
    ) -> None:
        super().__init__(
            n_jobs=n_jobs, gpus=None, jobs_per_gpu=1, threads=threads, timeout=None, retries=retries, grace=0.0
        )
        from detlab.errors import ConfigError
        from detlab.sweeps.options import one_of, whole

        at = "hydra.launcher."
        self.cluster = one_of(f"{at}cluster", cluster, ("slurm", "local"))
        self.max_requeues = whole(f"{at}max_requeues", max_requeues, least=0) or 0
        self.resources = {key: value for key, value in resources.items() if value is not None}
        counts = {"timeout_min": 1, "nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0, "cpus_per_task": 1}
        for key, least in counts.items():
            whole(f"{at}resources.{key}", self.resources.get(key), least=least, none="the cluster's choice")
        if cluster == "local" and (self.resources.get("tasks_per_node") or 1) > 1:
            raise ConfigError(
                f"{at}cluster=local would run a job once per task, all in one folder; use "
                f"{at}resources.tasks_per_node=1, and trainer.devices for the processes of a job."
            )

    def start(self, sweep: Sweep, job: Job, gpus: list[str], resume: bool, lock: int) -> Handle:
        """Submit a job, or attach to one that an earlier command submitted."""
        from detlab.sweeps.cluster import ClusterHandle, NodeTask
        from detlab.sweeps.process import job_command

        executor = self._executor(sweep.folder)
        if job.cluster_id is not None and job.state == "running" and (found := self._alive(executor, sweep, job)):
            return found
        if not resume:
            sweep.record.set_aside(job)
        job.command = job_command(job, module=module_run(), flags=sweep.flags(), resume=resume)
        threads = self.threads or self.resources.get("cpus_per_task")
        submitted = executor.submit(NodeTask(job, sweep.folder.name, Path.cwd(), threads))
        job.cluster_id = submitted.job_id
        return ClusterHandle(submitted, job.folder)

    def plan(self, sweep: Sweep, overrides: Sequence[str], choices: Mapping[str, str]) -> Job:
        """The job with these overrides; refused if each of its tasks would be a separate run in the same folder."""
        job = super().plan(sweep, overrides, choices)
        if job.state != "refused" and (reason := self._alone()):
            job.state, job.reason = "refused", reason
        return job

    def _alone(self) -> str | None:
        """Why the tasks of a job would not form one run; None if they do, or if there is only one task."""
        tasks = int(self.resources.get("nodes", 1)) * int(self.resources.get("tasks_per_node", 1))
        if tasks > 1 and self.cluster == "local":
            return (
                f"hydra.launcher.cluster=local starts {tasks} commands per job, each a run of its own in its folder; "
                f"use hydra.launcher.resources.tasks_per_node=1 and nodes=1, and let the trainer start its processes, "
                f"trainer=ddp_cpu or trainer=ddp."
            )
        return None

    def gpus_of(self, job: Job) -> int:
        """No GPUs are assigned here; the cluster does that."""
        return 0

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise SystemExit("detlab: hydra/launcher=slurm needs submitit; pip install 'detlab[cluster]'.") from error
        options = {f"{self.cluster}_max_num_timeout": self.max_requeues}
        executor = submitit.AutoExecutor(folder / "submitit" / "%j", cluster=self.cluster, **options)
        executor.update_parameters(name=f"detlab-{folder.name}"[:60], **self.resources)
        return executor

    def _alive(self, executor: Any, sweep: Sweep, job: Job) -> Handle | None:
        from detlab.sweeps.cluster import ALIVE, ClusterHandle

        submitted = executor._executor.job_class(folder=sweep.folder / "submitit" / "%j", job_id=job.cluster_id)
        return ClusterHandle(submitted, job.folder) if submitted.state in ALIVE else None
