"""Files that one process holds: the kernel gives them back when it ends, whatever ends it. Needs POSIX's flock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from pathlib import Path
from typing import Any

BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # some network file systems


class NoLocksError(OSError):
    """The file system has no locks."""


class Lock:
    """An exclusive lock on a file, which also says who holds it.

    The file stays when the lock is given back: removing it would let two processes hold two files of one name.

    Args:
        path: the file, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._process = -1

    def take(self) -> bool:
        """Whether this process holds the lock now; False where another one does.

        Raises:
            NoLocksError: the file system has none.
            OSError: the file cannot be written, or its folder is gone.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                held = _flock(descriptor, fcntl.LOCK_EX, self.path)
            except BaseException:
                os.close(descriptor)
                raise
            if held and _is(descriptor, self.path):
                self.descriptor, self._process = descriptor, os.getpid()
                self._sign()
                return True
            os.close(descriptor)
            if not held:
                return False  # else the file was moved away before it was locked: the one there now counts

    def give_back(self) -> None:
        """Unlock. Processes forked from this one share the lock, so that closing the file would not do."""
        if self._process == os.getpid():
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = self._process = -1

    def close(self) -> None:
        """Let go of the file; the lock stays while a process that was handed the descriptor lives."""
        if self._process == os.getpid():
            os.close(self.descriptor)
            self.descriptor = self._process = -1

    def _sign(self) -> None:
        text = json.dumps({"process": os.getpid(), "host": platform.node()})
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


def holder(path: Path) -> dict[str, Any]:
    """The process and host that locked a file last; empty where it does not say. For messages alone: a process id may
    belong to another program by now."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_locked(path: Path) -> bool:
    """Whether any process holds a file; False where there is no file, or no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH, path)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        if error.errno in UNKNOWN:
            raise NoLocksError(error.errno, f"{path} lies on a file system without locks") from error
        raise
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
