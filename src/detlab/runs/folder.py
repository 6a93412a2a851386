"""A run folder belongs to one command: it is locked before anything is written, and the kernel releases the lock.

Only rank 0 of a run holds the lock; its other ranks and its stages write inside the folder without a lock of their own.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from detlab.errors import ConfigError
from detlab.system.files import read_json
from detlab.system.locks import Lock, NoLocksError, holder, is_locked
from detlab.system.text import complain

LOCK = ".lock"
OF_A_RUN = ("status.json", "checkpoints", "stages", "metrics.csv", "result.json")  # any of these marks a used folder
MOMENT_S = 0.5  # wait for another process that only tests the lock
TRIES = 3  # to create and lock a folder
LEFT_BEHIND_S = 20.0  # wait for loader workers of a killed process, which notice its death within 5 s
OF_A_START = (".hydra", LOCK)  # what Hydra and the lock write before a command's own work, besides an empty log
_held: dict[Path, Lock] = {}  # locks that this process holds
_made: dict[Path, Path] = {}  # folders of them that this process created: the highest that did not exist before


def rank() -> int:
    """Rank of this process in its run, from the launcher's environment variables; 0 for a process started alone.

    The variables are read in Lightning's order. NODE_RANK distinguishes machines if a user starts one command on each.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    found = (os.environ.get(name, "0") for name in ("LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK"))
    return next((int(text) for text in found if text.isdigit() and int(text)), 0)


def claim(
    folder: Path, *, resume: bool = False, holds: Sequence[str] = OF_A_RUN, option: str = "hydra.run.dir"
) -> None:
    """Lock a folder for this process until `give_back` or the end of the process; no effect if it is locked already.

    Args:
        folder: created if missing.
        resume: allow the files of an unfinished run in it, which will be continued.
        holds: names of files that the command would overwrite; any of them makes the folder occupied.
        option: option that sets another folder, for the message.

    Raises:
        ConfigError: another process holds the folder, it is occupied, or it is not writable.
    """
    key = folder.resolve()
    if key in _held:
        return
    top = _first_missing(folder)
    for attempt in range(TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder, option)
            break
        except OSError as error:
            if isinstance(error, FileNotFoundError) and attempt + 1 < TRIES:
                continue  # another command removed the folder, see `remove_unused`
            reason = f"{folder} cannot be written ({error.strerror}); give another folder, {option}=FOLDER."
            raise ConfigError(reason) from error
    found = [name for name in holds if (folder / name).exists()]
    if found and not resume:
        lock.give_back()
        raise ConfigError(_occupied(folder, found[0]))
    _held[key] = lock
    if top is not None:
        _made.setdefault(key, top)


def remove_unused() -> None:
    """Remove the folders that this process created and holds, where nothing but the start of a command was written."""
    for key in [key for key in _held if key in _made]:
        folder = key
        with suppress(OSError):
            files = list(folder.iterdir())
            if all(f.name in OF_A_START or (f.suffix == ".log" and not f.stat().st_size) for f in files):
                shutil.rmtree(folder)
                while folder != _made[key]:
                    folder = folder.parent
                    folder.rmdir()  # raises if another command's run is in it


def make_free(folder: Path) -> Path:
    """Create the folder; if the name exists, the first free one of NAME-2, NAME-3, ...

    Raises:
        ConfigError: no folder can be created.
    """
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            place.mkdir(parents=True)  # succeeds in one of several processes
            break
        except FileExistsError:
            continue
        except OSError as error:
            reason = f"{place} cannot be made ({error.strerror}); give another folder, hydra.run.dir=FOLDER."
            raise ConfigError(reason) from error
    return place


def claim_free(folder: Path) -> Path:
    """Create and lock the folder; if the name exists, the first free one of NAME-2, NAME-3, ...

    Raises:
        ConfigError: no folder can be created.
    """
    top = _first_missing(folder)
    while True:
        place = make_free(folder)
        with suppress(ConfigError):  # another command with the same folder locked it first
            claim(place)
            _made[place.resolve()] = top or place.resolve()
            return place


def give_back(folder: Path) -> None:
    """Release a folder; no effect if this process does not hold it."""
    lock = _held.pop(folder.resolve(), None)
    if lock is not None:
        lock.give_back()


@contextmanager
def claimed(folder: Path, *, resume: bool = False) -> Iterator[None]:
    """Context manager that locks a run's folder in rank 0; an earlier lock outlasts it.

    Raises:
        ConfigError: see `claim`.
    """
    if rank() or folder.resolve() in _held:
        yield
        return
    claim(folder, resume=resume)
    try:
        yield
    finally:
        give_back(folder)


def in_use(folder: Path) -> bool:
    """Whether another process holds the lock of a folder."""
    return folder.resolve() not in _held and is_locked(folder / LOCK)


def _first_missing(folder: Path) -> Path | None:
    """The highest folder of a path that does not exist; None if all do."""
    missing = [place for place in (folder.absolute(), *folder.absolute().parents) if not place.exists()]
    return missing[-1].resolve() if missing else None


def _lock(folder: Path, option: str) -> Lock:
    """Take the lock; wait up to MOMENT_S, or up to LEFT_BEHIND_S if its holder is dead and only its workers live on.

    Raises:
        ConfigError: another process holds it.
    """
    lock, begun, told = Lock(folder / LOCK), time.monotonic(), False
    try:
        while not lock.take():
            owner = holder(lock.path)
            dead = owner.get("host") == platform.node() and not _exists(owner.get("process"))
            if time.monotonic() - begun > (LEFT_BEHIND_S if dead else MOMENT_S):
                who = f" (process {owner['process']} on {owner.get('host')})" if "process" in owner else ""
                raise ConfigError(
                    f"{folder} is held by another detlab command{who}; wait for its end, or give another folder, "
                    f"{option}=FOLDER."
                )
            if dead and not told:
                _say(f"process {owner['process']} is gone, but a process that it started still holds {folder}; waiting")
                told = True
            time.sleep(0.05)
    except NoLocksError:
        _say(f"{folder} lies on a file system without locks: nothing keeps a second command out of it.")
    return lock


def _occupied(folder: Path, found: str) -> str:
    status = read_json(folder / "status.json")
    state = status.get("state") if isinstance(status, dict) else None
    if found not in OF_A_RUN or (state is None and found == "result.json"):
        return f"{folder} holds {found} of an earlier command; give another folder, hydra.run.dir=FOLDER."
    if state == "finished":
        return f"{folder} holds a finished run; give another folder, hydra.run.dir=FOLDER."
    told = f", {state}" if state in ("stopped", "failed") else ""
    return (
        f"{folder} holds an unfinished run ({found}{told}); resume=true goes on with it, and another folder, "
        f"hydra.run.dir=FOLDER, starts afresh."
    )


def _exists(process: object) -> bool:
    """Whether a process with that id runs; zombies do not count."""
    try:
        return ") Z" not in Path(f"/proc/{int(str(process))}/stat").read_text()
    except (OSError, ValueError):
        return False


def _say(text: str) -> None:
    complain(text)
