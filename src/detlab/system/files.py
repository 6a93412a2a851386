"""Write files atomically, even if the process is killed meanwhile; read JSON files that may be missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from detlab.system.foreign import ForeignFileError, read_json_bounded

TEMPORARY = ".part"  # suffix of files that are still being written


class Sink:
    """A file opened for writing that remembers what went wrong: torch.save says nothing of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write to the file."""
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """What torch.save asks of a file."""
        self.file.flush()


def write_whole(path: Path, content: bytes | Callable[[Sink], None], *, previous: Path | None = None) -> None:
    """Write a file atomically: under a temporary name, synced to disk, then renamed. Readers never see half a file.

    Args:
        content: the bytes, or a function that writes them, piece by piece.
        previous: keep the old file under this name; at every moment at least one of both names is a complete file.

    Raises:
        OSError: the disk is full or gone; the old file is unchanged and the temporary one removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            _keep(path, previous)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _fill(file: BinaryIO, content: bytes | Callable[[Sink], None]) -> None:
    sink = Sink(file)
    try:
        if isinstance(content, bytes):
            sink.write(content)
        else:
            content(sink)
    except Exception:
        if sink.error is not None:
            raise sink.error from None
        raise


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write JSON atomically; a list of numbers takes one line, or with `compact` the whole file does."""
    text = json.dumps(value, default=str) if compact else _laid_out(value)
    write_whole(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file, see `read_json_bounded`; None if the file is missing or no JSON."""
    try:
        return read_json_bounded(path)
    except ForeignFileError:
        return None


def read_facts(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or holds no object."""
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON text with one line per entry of an object; lists of numbers or strings stay on one line."""
    deeper = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{deeper}{json.dumps(str(k))}: {_laid_out(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return "[\n" + ",\n".join(deeper + _laid_out(v, deeper) for v in value) + "\n" + indent + "]"
    return json.dumps(value, default=str)


def overwrite(path: Path, content: bytes) -> None:
    """Overwrite a file in place, padded with blanks: this needs no free space on a full disk.

    Raises:
        OSError: the file is missing, or shorter than the content.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(content):
            raise OSError(f"{path} has no room for {len(content)} bytes in its place.")
        file.write(content + b" " * (size - len(content)))
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that died while writing."""
    for file in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            file.unlink()


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` a second name of the file at `path`."""
    link = previous.with_name(f".{previous.name}.{os.getpid()}{TEMPORARY}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
        link.replace(previous)
    except OSError:  # a file system without hard links: for a moment only `previous` is there
        path.replace(previous)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems that can open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
