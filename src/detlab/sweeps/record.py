"""What a sweep's folder holds of all its jobs: sweep.json, and which job of an earlier command is which."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detlab.sweeps.job import GOOD, RECORD, RESUMABLE, STATES, Job
from detlab.system.files import read_json, write_json
from detlab.system.locks import Lock, NoLocksError

FILE, LOCK, CONFIG = "sweep.json", ".lock", "multirun.yaml"
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
        self.jobs: list[Job] = []  # that this command asked for
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._since = time.monotonic()
        self._known: dict[str, list[dict[str, Any]]] = {}  # job.json by config hash, in order of number
        self._next = 0

    def _read(self) -> None:
        """Learn what lies in the folder, once it is locked: nobody changes it any more."""
        found = [entry for path in self.folder.glob(f"*/{RECORD}") if (entry := read_entry(path)) is not None]
        for entry in sorted(found, key=lambda e: e["number"]):
            self._known.setdefault(entry["hash"], []).append(entry)
        taken = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]  # by any launcher
        self._next = max(taken, default=-1) + 1

    def overrides(self) -> list[list[str]]:
        """Of the jobs that earlier commands left here."""
        entries = [entry for known in self._known.values() for entry in known]
        return [[str(o) for o in entry["overrides"]] for entry in entries if isinstance(entry.get("overrides"), list)]

    def place(self, config_hash: str) -> tuple[int, dict[str, Any]]:
        """(number, what an earlier command left) of a job; a config seen for the first time gets the next number."""
        entries = self._known.get(config_hash)
        if entries:
            entry = entries.pop(0)  # a config that stands twice in a sweep has two folders
            return entry["number"], entry
        number, self._next = self._next, self._next + 1
        return number, {}

    def add(self, job: Job, earlier: dict[str, Any]) -> Job:
        """Add a job with the state an earlier command left it in; what a failed try left is moved away.

        A job that was refused is judged anew: the machine may have more GPUs now, or another rule may hold.
        """
        for key in ("state", "tries", "seconds", "reason", "traceback", "command", "cluster_id", "monitor", "value"):
            setattr(job, key, earlier.get(key, getattr(job, key)))
        if job.state == "refused":
            job.state, job.reason = "queued", None
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
        """Write sweep.json: every job of the folder; `asked` are those of this command."""
        others = [_at_rest(entry) for entries in self._known.values() for entry in entries]
        jobs = sorted([*others, *(job.as_dict() for job in self.jobs)], key=lambda entry: entry["number"])
        write_json(
            self.folder / FILE,
            {
                "command": self.command,
                "started": self.started,
                "seconds": round(self.seconds, 1),
                "counts": dict(Counter(entry["state"] for entry in jobs)),
                "asked": sorted(job.number for job in self.jobs),
                "jobs": jobs,
            },
        )

    @property
    def seconds(self) -> float:
        """Since this command began."""
        return time.monotonic() - self._since

    @property
    def failed(self) -> list[Job]:
        """Jobs of this command that did not come to a good end."""
        return [job for job in self.jobs if job.state not in GOOD]

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the sweep; gives the lock's file descriptor, which jobs keep open, so that it holds while any lives.

        Raises:
            SweepBusyError: another command, or a job of one that was killed, holds it.
        """
        lock = hold(self.folder)
        try:
            self._read()  # another command may have ended between the first look and the lock
            yield lock.descriptor
        except BaseException:
            forget_empty(self.folder)
            raise
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
        lock = Lock(folder / LOCK)
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


def forget_unused(folder: Path) -> None:
    """At the end of a command: remove a folder that it took and still holds, because a mistake kept it from any job."""
    if folder.resolve() in _held:
        forget_empty(folder)


def forget_empty(folder: Path) -> None:
    """Remove a sweep's folder that holds no job: a mistake in the command leaves nothing behind."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {LOCK, CONFIG}:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


def read_entry(path: Path) -> dict[str, Any] | None:
    """A job.json with the number and folder that it lies in; None where it is damaged or no sweep's."""
    entry = read_json(path)
    if not isinstance(entry, dict) or not path.parent.name.isdigit():
        return None
    if not isinstance(entry.get("hash"), str) or entry.get("state") not in STATES:
        return None
    sound: dict[str, type | tuple[type, ...]] = {"tries": int, "seconds": (int, float), "command": list}
    if not all(isinstance(entry.get(key), kind) for key, kind in sound.items()):
        return None
    return {**entry, "number": int(path.parent.name), "folder": str(path.parent)}


def _at_rest(entry: dict[str, Any]) -> dict[str, Any]:
    """A job of another command; as this one holds the folder, it does not run, except on a cluster."""
    if entry["state"] == "running" and entry.get("cluster_id") is None:
        return {**entry, "state": "stopped"}
    return entry
