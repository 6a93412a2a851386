"""Lock files: the kernel releases them when their process ends, even if it is killed. Needs POSIX's flock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from pathlib import Path
from typing import Any

from detlab.system.files import read_facts

BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # no locks, as on some network file systems


class NoLocksError(OSError):
    """The file system does not support locks."""


class Lock:
    """An exclusive lock on a file whose content names the process that holds it.

    The file stays when the lock is released: if it were removed, two processes could hold two files of the same name.

    Args:
        path: the file, created if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._process = -1

    def take(self) -> bool:
        """Try to take the lock without waiting; False if another process holds it.

        A link is not followed: in a folder of someone else it could lead to any file, which would be overwritten.

        Raises:
            NoLocksError: the file system does not support locks.
            OSError: the file is not writable, is a link, or its folder is gone.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                held = _flock(descriptor, fcntl.LOCK_EX, self.path)
            except BaseException:
                os.close(descriptor)
                raise
            if held and _is(descriptor, self.path):
                self.descriptor, self._process = descriptor, os.getpid()
                self._write_holder()
                return True
            os.close(descriptor)
            if not held:
                return False  # if held: the file was replaced before it was locked, so try the new one

    def give_back(self) -> None:
        """Release the lock explicitly: forked processes share it, so closing the file would not release it."""
        if self._process == os.getpid():
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = self._process = -1

    def close(self) -> None:
        """Close the file; the lock stays while another process with the same descriptor lives."""
        if self._process == os.getpid():
            os.close(self.descriptor)
            self.descriptor = self._process = -1

    def _write_holder(self) -> None:
        text = json.dumps({"process": os.getpid(), "host": platform.node()})
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


def holder(path: Path) -> dict[str, Any]:
    """The process id and host that locked a file last; empty if the file does not name them.

    Use it in messages only: the process id may belong to another program by now.
    """
    return read_facts(path)


def is_locked(path: Path) -> bool:
    """Whether any process holds the lock; False if the file is missing or locks are not supported."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
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
    """Whether an open file is still the file at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
