"""Run several jobs at once: start, watch, retry and end them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from detlab.sweeps.job import RESUMABLE, Job, Progress
from detlab.sweeps.slots import GpuSlots

POLL = 0.2  # seconds between checks of the processes
LOOK = 2.0  # seconds between reads of a running job's files


class Handle(Protocol):
    """A running job: a local process or a job of a cluster."""

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """Send a signal; kill the job after `grace` seconds."""


class Feed(Protocol):
    """A source of jobs."""

    def take(self) -> Job | None:
        """The next job; None if there is none now."""

    def over(self) -> bool:
        """Whether there will be no more jobs."""

    def seen(self, job: Job, progress: Progress) -> bool:
        """Called regularly with the progress of a running job; True ends the job as pruned."""

    def ended(self, job: Job) -> None:
        """Called when a job has ended."""


class ListFeed:
    """A fixed list of jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)

    def take(self) -> Job | None:
        """The next job."""
        return self._waiting.pop(0) if self._waiting else None

    def over(self) -> bool:
        """Whether all jobs were taken."""
        return not self._waiting

    def seen(self, job: Job, progress: Progress) -> bool:
        """Jobs are never pruned."""
        return False

    def ended(self, job: Job) -> None:
        """Nothing to do."""


@dataclass
class _Running:
    job: Job
    handle: Handle
    gpus: list[str]
    since: float
    before: float  # seconds of earlier attempts
    looked: float = 0.0
    ended_as: str | None = None  # state of a job that the pool has told to end
    told: signal.Signals | None = None  # signal sent to it because the whole sweep ends


class Pool:
    """Runs the jobs of a feed.

    Args:
        start: starts a job; called as start(job, gpus, resume).
        changed: called after every change of a job's state.
        tick: called at every poll, for a live table.
        n_jobs: jobs that run at once; None: as many as the GPUs allow, one on a CPU.
        gpus: GPUs to share among the jobs.
        retries: further attempts for a failed job.
        timeout: time limit of a job in seconds; None for no limit.
        grace: seconds between a signal and kill.
    """

    def __init__(
        self,
        *,
        start: Callable[[Job, list[str], bool], Handle],
        changed: Callable[[Job], None],
        tick: Callable[[], None] = lambda: None,
        n_jobs: int | None = 1,
        gpus: GpuSlots | None = None,
        retries: int = 0,
        timeout: float | None = None,
        grace: float = 30.0,
    ) -> None:
        self.start, self.changed, self.tick = start, changed, tick
        self.n_jobs, self.gpus = n_jobs, gpus or GpuSlots(())
        self.retries, self.timeout, self.grace = retries, timeout, grace
        self._running: list[_Running] = []
        self._again: list[Job] = []

    def run(self, feed: Feed) -> None:
        """Run until the feed is over and all jobs have ended; KeyboardInterrupt ends the jobs and is raised again."""
        waiting: Job | None = None
        try:
            while True:
                while waiting is not None or self._has_room():
                    waiting = waiting or (self._again.pop(0) if self._again else feed.take())
                    if waiting is None or not self._begin(waiting, feed):
                        break
                    waiting = None
                if waiting is None and not self._running and not self._again and feed.over():
                    return
                time.sleep(POLL)
                for running in list(self._running):
                    self._look(running, feed)
                self.tick()
        except KeyboardInterrupt:
            self._end_all()
            raise

    def _has_room(self) -> bool:
        """Whether n_jobs allows another job; one that needs GPUs may still have to wait for them."""
        limit = self.n_jobs or max(1, len(self.gpus.ids))
        return len(self._running) < limit

    def _begin(self, job: Job, feed: Feed) -> bool:
        """Start a job, or mark it as refused; False if it has to wait for GPUs."""
        if not self._has_room():
            return False
        if job.gpus > len(self.gpus.ids) or (job.gpus and not self.gpus.ids):
            job.state, job.reason = "refused", f"it needs {job.gpus} GPUs, and this machine shows {len(self.gpus.ids)}"
            self._finished(job, feed)
            return True
        taken = self.gpus.take(job.gpus)
        if taken is None:
            return False
        resume = job.state in RESUMABLE and job.checkpoint.is_file()
        handle = self.start(job, taken, resume)
        job.tries += 1
        job.state, job.reason, job.traceback = "running", None, None
        self._running.append(_Running(job, handle, taken, time.monotonic(), job.seconds))
        self.changed(job)
        return True

    def _look(self, running: _Running, feed: Feed) -> None:
        job, now = running.job, time.monotonic()
        job.seconds = running.before + now - running.since
        code = running.handle.poll()
        if code is not None:
            self._running.remove(running)
            self.gpus.give(running.gpus)
            self._judge(running, code, feed)
            return
        if running.ended_as is None and self.timeout is not None and now - running.since > self.timeout:
            job.reason = f"it took longer than hydra.launcher.timeout={self.timeout:g} seconds"
            self._end(running, "timeout", signal.SIGTERM)
        if now - running.looked > LOOK:
            running.looked = now
            progress = job.note_progress()
            if running.ended_as is None and feed.seen(job, progress):
                job.reason = "pruned: worse than the trials before it at this epoch"
                self._end(running, "pruned", signal.SIGTERM)

    def _judge(self, running: _Running, code: int, feed: Feed) -> None:
        """Set a job's state from its exit status; retry or finish it."""
        job = running.job
        job.note_progress()
        if code == 0 and running.ended_as != "pruned":
            job.state, job.reason = "done", None
        elif running.ended_as is not None:
            job.state = running.ended_as
        else:
            job.state = "failed"
            job.note_failure(code)
        refused = job.state == "failed" and code == 2  # a mistake in the config; retrying cannot help
        if job.state in ("failed", "timeout") and not refused and job.tries <= self.retries:
            self.changed(job)
            self._again.append(job)
            return
        self._finished(job, feed)

    def _finished(self, job: Job, feed: Feed) -> None:
        self.changed(job)
        feed.ended(job)

    def _end(self, running: _Running, state: str, sent: signal.Signals) -> None:
        running.ended_as = state
        running.handle.stop(sent, self.grace)

    def _end_all(self) -> None:
        """End all running jobs; a second Ctrl-C at any moment kills them at once."""
        sent, grace = signal.SIGTERM, self.grace
        while self._running:
            try:
                for running in self._running:
                    if running.ended_as is None:
                        running.ended_as, running.job.reason = "stopped", "interrupted with its sweep"
                    if running.told != sent:
                        running.handle.stop(sent, grace)
                        running.told = sent
                for running in list(self._running):
                    self._see_end(running)
                if self._running:
                    time.sleep(POLL)
            except KeyboardInterrupt:
                sent, grace = signal.SIGKILL, 0.0

    def _see_end(self, running: _Running) -> None:
        """Record the state of a job that was told to end, if it has ended."""
        code = running.handle.poll()
        if code is None:
            return
        running.job.note_progress()
        running.job.state = "done" if code == 0 else running.ended_as or "stopped"
        self.changed(running.job)
        self._running.remove(running)
