"""Checks of image files, in several threads, and their cache.

The cache is one file per kind of check to which rows are appended while the checks run, so that a check that was
interrupted goes on where it ended. A row belongs to a path, a file size and a modification time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from detlab.data.images import ImageError, ImageFacts, inspect
from detlab.data.jpeg_header import plain_jpeg_facts
from detlab.data.progress import Progress
from detlab.system.reading import ReadError, read_bytes

FACTS_VERSION = 4  # of the cached facts
AT_ONCE = 64  # files that a thread takes at once
WAITING_S = 0.01  # s of waiting for AT_ONCE files from which threads are worth their cost
APPENDED = 5.0  # seconds after which new rows are written, and AT_ONCE files later
DIGEST = 16  # bytes
ROW = struct.Struct("<16s4qBB8sI")  # digest, (h, w), raw (h, w), rotated, several, mode, checksum of all before


class Unusable(NamedTuple):
    """Why a file cannot be used."""

    rule: str  # of the audit
    reason: str = ""


Fact = ImageFacts | Unusable | None  # None for an image without a file


def facts_of(
    paths: Sequence[str | None], *, decode: bool, max_pixels: int, cache_dir: Path | None, title: str
) -> list[Fact]:
    """Facts of files, in order.

    Args:
        paths: None for images without a file.
        decode: decode every file, so that truncated ones are found.
        max_pixels: larger images are unusable.
        cache_dir: folder of the cache; None for none.
        title: what the progress bar calls the files.
    """
    known = FactsCache(cache_dir, decode, max_pixels)
    look = _Looker(known, decode, max_pixels)
    facts: list[Fact] = []
    parts = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)]
    try:
        with Progress(f"checking {title}", len(paths)) as shown:
            for found in _in_order(look, parts, in_threads=decode):
                facts += found
                shown.advance(len(found))
                known.append_some()
    finally:
        known.append()
    return facts


def _in_order(
    look: Callable[[Sequence[str | None]], list[Fact]], parts: Sequence[Sequence[str | None]], *, in_threads: bool
) -> Iterator[list[Fact]]:
    """The facts of each part, in order.

    Threads help where Python's lock is free meanwhile: while pixels are decoded (`in_threads`), and while a file
    system keeps one waiting. Otherwise they only contend for the lock, which takes a third more CPU time.
    """
    done = 0
    for part in () if in_threads else parts:
        begun, worked = time.perf_counter(), time.thread_time()
        found = look(part)
        worked, waited = time.thread_time() - worked, time.perf_counter() - begun
        yield found
        done += 1
        if waited > WAITING_S + 2 * worked:
            break
    if done < len(parts):
        with ThreadPoolExecutor(_threads()) as pool:
            yield from pool.map(look, parts[done:])


def _threads() -> int:
    return min(8, 2 * (os.cpu_count() or 1))


class _Looker:
    """Looks at files, called by several threads."""

    def __init__(self, known: FactsCache, decode: bool, max_pixels: int) -> None:
        self.known, self.decode, self.max_pixels = known, decode, max_pixels
        self.prefixes: dict[str, str] = {}  # the real path of a folder, with a slash at its end

    def __call__(self, paths: Iterable[str | None]) -> list[Fact]:
        return [None if path is None else self._one(path) for path in paths]

    def _one(self, path: str) -> Fact:
        try:
            found = os.lstat(path)
            linked = stat.S_ISLNK(found.st_mode)
            found = os.stat(path) if linked else found
        except (OSError, ValueError):
            return Unusable("missing image")
        if not stat.S_ISREG(found.st_mode):
            return Unusable("unreadable image", "is no regular file, such as a pipe")
        real = os.path.realpath(path) if linked else self._real(path)
        key = digest(f"{real}:{found.st_size}:{found.st_mtime_ns}")
        fact = self.known.get(key)
        if fact is None:
            try:
                plain = None if self.decode else plain_jpeg_facts(path, self.max_pixels)
                fact = plain or inspect(Path(path), decode=self.decode, max_pixels=self.max_pixels)
            except ImageError as error:
                return Unusable("unreadable image", str(error))
            self.known.put(key, fact)
        return fact

    def _real(self, path: str) -> str:
        """The path of a file that is no link, with links in its folder resolved."""
        folder, _, name = path.rpartition("/")
        prefix = self.prefixes.get(folder)
        if prefix is None:
            prefix = self.prefixes[folder] = os.path.join(os.path.realpath(folder or "/"), "")
        return prefix + name


class FactsCache:
    """Facts of files checked before; damaged rows are checked again.

    Args:
        folder: where the file lies; None keeps nothing.
        decode, max_pixels: of the check; each kind has its own file.
    """

    def __init__(self, folder: Path | None, decode: bool, max_pixels: int) -> None:
        kind = f"{FACTS_VERSION}-{'full' if decode else 'header'}-{max_pixels}"
        self.path = folder / f"images-{kind}.bin" if folder else None
        data = b""
        if self.path is not None:
            with suppress(OSError, ReadError):  # without the cache, the check only takes longer
                data = read_bytes(self.path)
        whole = len(data) - len(data) % ROW.size
        self.rows = {data[i : i + DIGEST]: data[i : i + ROW.size] for i in range(0, whole, ROW.size)}
        self.facts: dict[bytes, ImageFacts] = {}  # by what rows say; many rows say the same
        self.new: list[bytes] = []
        self.written = time.monotonic()

    def get(self, key: bytes) -> ImageFacts | None:
        """The facts of a file, if they are known."""
        row = self.rows.get(key)
        if row is None or zlib.crc32(row[:-4]) != int.from_bytes(row[-4:], "little"):
            return None
        content = row[DIGEST:-4]
        if content not in self.facts:
            _, height, width, raw_height, raw_width, rotated, several, mode, _ = ROW.unpack(row)
            name = mode.rstrip(b"\0").decode("ascii", "replace")
            self.facts[content] = ImageFacts(
                (height, width), (raw_height, raw_width), name, bool(rotated), bool(several)
            )
        return self.facts[content]

    def put(self, key: bytes, fact: ImageFacts) -> None:
        """Remember a file's facts; `append` writes them."""
        mode = fact.mode.encode("ascii", "replace")
        row = ROW.pack(key, *fact.size, *fact.raw_size, fact.rotated, fact.several, mode, 0)[:-4]
        self.new.append(row + zlib.crc32(row).to_bytes(4, "little"))

    def append_some(self) -> None:
        """Write the new rows, if the last were written a while ago."""
        if time.monotonic() > self.written + APPENDED:
            self.append()

    def append(self) -> None:
        """Write the new rows behind those of the file, at once, so that other processes may do the same."""
        rows, self.new, self.written = self.new, [], time.monotonic()
        if self.path is None or not rows:
            return
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                torn = -file.tell() % ROW.size  # a process that was killed may have left half a row
                file.write(b"\0" * torn + b"".join(rows))


def digest(text: str) -> bytes:
    """A hash of DIGEST bytes; names of files in no encoding have one, too."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()
