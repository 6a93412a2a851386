"""What a sweep's folder holds of all its jobs: sweep.json, and which job of an earlier command is which."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detlab.files import read_json, write_json
from detlab.locks import Lock, NoLocksError
from detlab.sweeps.job import GOOD, RECORD, RESUMABLE, Job

FILE = "sweep.json"
RETRIED = "failed"  # folder of what failed tries left
OF_A_RUN = ("status.json", "checkpoints", "stages")  # left where a launcher died before it wrote the job's state


class SweepBusyError(RuntimeError):
    """Another command runs this sweep."""


class SweepRecord:
    """The jobs of a sweep's folder.

    Args:
        folder: of the sweep.
        command: that runs it.
    """

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder, self.command = folder, command
        self.jobs: list[Job] = []
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._since = time.monotonic()
        self._known = self._earlier()

    def _earlier(self) -> dict[str, list[dict[str, Any]]]:
        """job.json of all job folders, by config hash, in order of number."""
        found = [read_json(path) for path in self.folder.glob(f"*/{RECORD}")]
        known: dict[str, list[dict[str, Any]]] = {}
        for entry in sorted((e for e in found if e), key=lambda e: e["number"]):
            known.setdefault(entry["hash"], []).append(entry)
        self._next = max((e["number"] for e in found if e), default=-1) + 1
        return known

    def place(self, config_hash: str) -> tuple[int, dict[str, Any]]:
        """(number, what an earlier command left) of a job; a config seen for the first time gets the next number."""
        entries = self._known.get(config_hash)
        if entries:
            entry = entries.pop(0)  # a config that stands twice in a sweep has two folders
            return entry["number"], entry
        number, self._next = self._next, self._next + 1
        return number, {}

    def add(self, job: Job, earlier: dict[str, Any]) -> Job:
        """Add a job with the state an earlier command left it in; what a failed try left is moved away."""
        for key in ("state", "tries", "seconds", "reason", "traceback", "command", "cluster_id", "monitor", "value"):
            setattr(job, key, earlier.get(key, getattr(job, key)))
        if job.state in GOOD:
            job.earlier = True
        elif job.state == "running" and job.cluster_id is not None:
            pass  # it may still be in the cluster's queue
        elif job.state not in RESUMABLE or not job.checkpoint.is_file():
            self.set_aside(job)
        self.jobs.append(job)
        return job

    def set_aside(self, job: Job) -> None:
        """Move what a failed try left into failed/, so that the next starts in an empty folder."""
        unmarked = job.state in ("queued", "refused") and not any((job.folder / name).exists() for name in OF_A_RUN)
        if unmarked or not job.folder.exists():
            return
        target = self.folder / RETRIED / f"{job.folder.name}-{job.tries}"
        while target.exists():
            target = target.with_name(target.name + "x")
        target.parent.mkdir(exist_ok=True)
        job.folder.rename(target)
        job.state, job.value = "queued", None

    def write(self) -> None:
        """Write sweep.json."""
        write_json(
            self.folder / FILE,
            {
                "command": self.command,
                "started": self.started,
                "seconds": round(time.monotonic() - self._since, 1),
                "counts": dict(Counter(job.state for job in self.jobs)),
                "jobs": [job.as_dict() for job in sorted(self.jobs, key=lambda j: j.number)],
            },
        )

    @property
    def failed(self) -> list[Job]:
        """Jobs that did not come to a good end."""
        return [job for job in self.jobs if job.state not in GOOD]

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the sweep; gives the lock's file descriptor, which jobs keep open, so that it holds while any lives.

        Raises:
            SweepBusyError: another command, or a job of one that was killed, holds it.
        """
        lock = hold(self.folder)
        self._known = self._earlier()  # another command may have ended between the first look and the lock
        try:
            yield lock.descriptor
        finally:
            _held.pop(self.folder.resolve(), None)
            lock.close()


_held: dict[Path, Lock] = {}  # by this process


def hold(folder: Path) -> Lock:
    """Take a sweep's folder, once for this process; its descriptor is -1 where the file system has no locks.

    Raises:
        SweepBusyError: another command, or a job of one that was killed, holds it.
    """
    key = folder.resolve()
    if key not in _held:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / ".lock")
        try:
            free = lock.take()
        except NoLocksError:
            print(f"detlab: {folder} lies on a file system without locks: nothing keeps a second command out of it.")
            free = True
        if not free:
            raise SweepBusyError(
                f"{folder} is being worked on by another command, or by a job of one that was killed; wait for its "
                f"end, or give hydra.sweep.dir another folder."
            )
        _held[key] = lock
    return _held[key]
