"""Runs jobs, several at once: starts, watches, retries, ends them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from detlab.sweeps.job import RESUMABLE, Job, Progress
from detlab.sweeps.slots import GpuSlots

POLL = 0.2  # seconds between looks at the processes
LOOK = 2.0  # seconds between looks at the files of a running job


class Handle(Protocol):
    """Something that runs: a process here, or a job of a cluster."""

    def poll(self) -> int | None:
        """Exit status, None while it runs."""

    def stop(self, sent: signal.Signals, grace: float) -> None:
        """End it."""


class Feed(Protocol):
    """Where jobs come from."""

    def take(self) -> Job | None:
        """The next job; None where there is none now."""

    def over(self) -> bool:
        """Whether none will come any more."""

    def seen(self, job: Job, progress: Progress) -> bool:
        """Told now and then of a running job; True ends it as pruned."""

    def ended(self, job: Job) -> None:
        """Told of a job's end."""


class ListFeed:
    """Jobs known beforehand."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)

    def take(self) -> Job | None:
        """The next job."""
        return self._waiting.pop(0) if self._waiting else None

    def over(self) -> bool:
        """Whether all are out."""
        return not self._waiting

    def seen(self, job: Job, progress: Progress) -> bool:
        """Nothing is pruned."""
        return False

    def ended(self, job: Job) -> None:
        """Nothing hangs on it."""


@dataclass
class _Running:
    job: Job
    handle: Handle
    gpus: list[str]
    since: float
    before: float  # seconds of earlier tries
    looked: float = 0.0
    ended_as: str | None = None  # why it was ended from here
    told: signal.Signals | None = None  # the signal it was sent with the end of the whole sweep


class Pool:
    """Runs the jobs of a feed.

    Args:
        start: makes a job run; called as start(job, gpus, resume).
        changed: told after every change of a job's state.
        tick: called at every look, for a live table.
        n_jobs: at once; None: as many as GPUs allow, one on a CPU.
        gpus: places on GPUs.
        retries: of a failed job.
        timeout: seconds of a job, None for no limit.
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
        """Until the feed is over and all have ended; on KeyboardInterrupt the jobs are ended, and it is raised."""
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
        """A job that needs GPUs may wait for them; one for the CPU starts while n_jobs allows."""
        limit = self.n_jobs or max(1, len(self.gpus.ids))
        return len(self._running) < limit

    def _begin(self, job: Job, feed: Feed) -> bool:
        """Start a job, or refuse it as things are; False: it has to wait."""
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
        """What an exit status means."""
        job = running.job
        job.note_progress()
        if code == 0 and running.ended_as != "pruned":
            job.state, job.reason = "done", None
        elif running.ended_as is not None:
            job.state = running.ended_as
        else:
            job.state = "failed"
            job.note_failure(code)
        refused = job.state == "failed" and code == 2  # a mistake in the config does not mend itself
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
        """End what runs; a second Ctrl-C, wherever it strikes, kills at once."""
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
        """Note the state of a job that was told to end, once it has."""
        code = running.handle.poll()
        if code is None:
            return
        running.job.note_progress()
        running.job.state = "done" if code == 0 else running.ended_as or "stopped"
        self.changed(running.job)
        self._running.remove(running)
