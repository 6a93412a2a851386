"""The record of a sweep's folder: sweep.json, and the jobs of earlier commands, found by config hash."""

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
RETRIED = "failed"  # folder for the files of failed attempts
OF_A_RUN = ("status.json", "checkpoints", "stages")  # files of a run whose launcher died before it wrote job.json


class SweepBusyError(RuntimeError):
    """Another command runs this sweep."""


class SweepRecord:
    """The jobs of a sweep's folder.

    Args:
        folder: folder of the sweep.
        command: command that runs it.
    """

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder, self.command = folder, command
        self.jobs: list[Job] = []  # jobs of this command
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._since = time.monotonic()
        self._known: dict[str, list[dict[str, Any]]] = {}  # {config hash: contents of job.json, in order of number}
        self._next = 0

    def _read(self) -> None:
        """Read the jobs in the folder; called after locking it, so that no other command changes it."""
        found = [entry for path in self.folder.glob(f"*/{RECORD}") if (entry := read_entry(path)) is not None]
        for entry in sorted(found, key=lambda e: e["number"]):
            self._known.setdefault(entry["hash"], []).append(entry)
        taken = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]  # jobs of any launcher
        self._next = max(taken, default=-1) + 1

    def overrides(self) -> list[list[str]]:
        """Overrides of the jobs of earlier commands."""
        entries = [entry for known in self._known.values() for entry in known]
        return [[str(o) for o in entry["overrides"]] for entry in entries if isinstance(entry.get("overrides"), list)]

    def place(self, config_hash: str) -> tuple[int, dict[str, Any]]:
        """(number, content of an earlier command's job.json) of a job; a new config gets the next number and {}."""
        entries = self._known.get(config_hash)
        if entries:
            entry = entries.pop(0)  # a config that occurs twice in a sweep has two folders
            return entry["number"], entry
        number, self._next = self._next, self._next + 1
        return number, {}

    def add(self, job: Job, earlier: dict[str, Any]) -> Job:
        """Add a job with its state from an earlier command; files of a failed attempt are moved away.

        A refused job is checked again, since the machine may have more GPUs or the rules may have changed.
        """
        for key in ("state", "tries", "seconds", "reason", "traceback", "command", "cluster_id", "monitor", "value"):
            setattr(job, key, earlier.get(key, getattr(job, key)))
        if job.state == "refused":
            job.state, job.reason = "queued", None
        if job.state in GOOD:
            job.earlier = True
        elif job.state == "running" and job.cluster_id is not None:
            pass  # the job may still be in the cluster's queue
        elif job.state not in RESUMABLE or not job.checkpoint.is_file():
            self.set_aside(job)
        self.jobs.append(job)
        return job

    def set_aside(self, job: Job) -> None:
        """Move the files of a failed attempt to failed/, so that the next attempt starts in an empty folder."""
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
        """Write sweep.json with all jobs of the folder; `asked` lists those of this command."""
        others = [_without_process(entry) for entries in self._known.values() for entry in entries]
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
        """Seconds since this command began."""
        return time.monotonic() - self._since

    @property
    def failed(self) -> list[Job]:
        """Jobs of this command that are neither done nor pruned."""
        return [job for job in self.jobs if job.state not in GOOD]

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Context manager that locks the sweep and yields the lock's file descriptor.

        Jobs inherit the descriptor, so the lock lasts as long as any of them lives.

        Raises:
            SweepBusyError: another command, or a job of a killed command, holds the lock.
        """
        lock = hold(self.folder)
        try:
            self._read()  # read again: another command may have changed the folder before it was locked
            yield lock.descriptor
        except BaseException:
            forget_empty(self.folder)
            raise
        finally:
            _held.pop(self.folder.resolve(), None)
            lock.close()


_held: dict[Path, Lock] = {}  # locks that this process holds


def hold(folder: Path) -> Lock:
    """Lock a sweep's folder, once per process; the lock's descriptor is -1 on a file system without locks.

    Raises:
        SweepBusyError: another command, or a job of a killed command, holds the lock.
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
    """At the end of a command: remove a locked folder without jobs, left by a command that ended with a mistake."""
    if folder.resolve() in _held:
        forget_empty(folder)


def forget_empty(folder: Path) -> None:
    """Remove a sweep's folder if it holds no job, so that a mistake in the command leaves no files."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {LOCK, CONFIG}:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


def read_entry(path: Path) -> dict[str, Any] | None:
    """The content of a job.json with its job's number and folder; None if it is damaged or not part of a sweep."""
    entry = read_json(path)
    if not isinstance(entry, dict) or not path.parent.name.isdecimal():
        return None
    if not isinstance(entry.get("hash"), str) or entry.get("state") not in STATES:
        return None
    sound: dict[str, type | tuple[type, ...]] = {"tries": int, "seconds": (int, float), "command": list}
    if not all(isinstance(entry.get(key), kind) for key, kind in sound.items()):
        return None
    return {**entry, "number": int(path.parent.name), "folder": str(path.parent)}


def _without_process(entry: dict[str, Any]) -> dict[str, Any]:
    """The record of an earlier command's job. Except on a cluster it cannot be running: this command holds the lock."""
    if entry["state"] == "running" and entry.get("cluster_id") is None:
        return {**entry, "state": "stopped"}
    return entry
