"""Where the files lie that annotations name: below the root, as written, whatever tool wrote the path."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

LINK_BYTES = 1000  # a link that git wrote as a text file holds one path
LINK_DEPTH = 8
OUTSIDE = "data.outside_root=true follows links and paths that leave data.root, for data of your own"


def inside(root: Path, name: str | Path) -> Path | None:
    """root / name, resolved, or None where that lies outside root, through links too, or is no path at all."""
    try:
        path = (root / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a circle of links
        return None
    return path if path.is_relative_to(root.resolve()) else None


def slashed(name: str) -> str:
    """A path with forward slashes, without ./ and a drive's letter."""
    name = name.strip().replace("\\", "/").removeprefix("file://")
    name = re.sub(r"^[A-Za-z]:(?=/)", "", name)
    return re.sub(r"(?:^|(?<=/))(?:\./+)+", "", name)


def followed(path: Path) -> Path:
    """The path, through links that a checkout without links left as text files holding their target."""
    for _ in range(LINK_DEPTH):
        if _exists(path):
            return path
        stand_in = next((p for p in path.parents if _is_file(p)), None)
        target = _link_target(stand_in) if stand_in is not None else None
        if stand_in is None or target is None:
            return path
        path = target / path.relative_to(stand_in)
    return path


def real_folder(path: Path) -> Path | None:
    """The folder at a path, through links of either kind; None where there is none."""
    path = followed(path)
    if _is_file(path):
        path = _link_target(path) or path
    try:
        return path if path.is_dir() else None
    except (OSError, ValueError):
        return None


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder by name, through links; hidden ones, and what macOS adds to archives, are left out."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


class Found(NamedTuple):
    """One look for a file."""

    path: Path | None  # where it lies, or should lie; None where it may not be read
    outside: bool = False  # it lies outside the root
    corrected: bool = False  # not at the path as written
    there: bool = False


class Finder:
    """Files below a data set's folder by the names that annotations give them.

    Args:
        root: no file is taken from outside of it.
        folders: where names start, in order; root comes last.
        outside: take files outside the root all the same (data.outside_root).
        suffixes: file name extensions to try for names without one of them.
    """

    def __init__(
        self, root: Path, folders: Sequence[Path], *, outside: bool = False, suffixes: Sequence[str] = ()
    ) -> None:
        self.root, self.outside, self.suffixes = root, outside, set(suffixes)
        self.folders = list(dict.fromkeys([*(followed(f) for f in folders), root]))
        self._top = root.resolve()
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def allowed(self, path: Path) -> bool:
        """Whether a file may be read."""
        if self.outside:
            return True
        try:
            return path.resolve().is_relative_to(self._top)
        except (OSError, ValueError, RuntimeError):
            return False

    def find(self, name: str) -> Found:
        """A file by its name: as written, else by the end of its path, else in other case or with an extension."""
        left, plain = False, slashed(name)
        if not plain or "\0" in plain:
            return Found(None, outside=True)
        for path, as_written in self._candidates(name, plain):
            if not _is_file(path):
                continue
            if self.allowed(path):
                return Found(path, corrected=not as_written, there=True)
            left = True
        leaves = os.path.isabs(plain) or ".." in PurePosixPath(plain).parts
        if not self.outside and (left or leaves):
            return Found(None, outside=True)
        return Found(self.folders[0] / plain)

    def _candidates(self, name: str, plain: str) -> Iterator[tuple[Path, bool]]:
        for folder in self.folders:
            if "\\" in name:
                yield folder / name, True  # a file system may allow it in names
            yield followed(folder / plain), True
        parts = [part for part in PurePosixPath(plain).parts if part not in ("/", "..")]
        ends = [PurePosixPath(*parts[i:]) for i in range(len(parts))]
        if "%" in plain and parts:
            ends.append(PurePosixPath(unquote(parts[-1])))
        for end in ends:
            for folder in self.folders:
                yield followed(folder / end), False
                for found in self._listed(followed(folder / end)):
                    yield found, _suffix(found.name) != _suffix(end.name) and _suffix(end.name) not in self.suffixes

    def _listed(self, path: Path) -> list[Path]:
        """Files beside a path that have its name in other case, or with an extension that the name lacks."""
        if path.parent not in self._listings:
            try:
                names = sorted(os.listdir(path.parent))
            except (OSError, ValueError):
                names = []
            listing: dict[str, list[str]] = {}
            for name in names:
                listing.setdefault(_folded(name), []).append(name)
                if _suffix(name) in self.suffixes:
                    listing.setdefault(_folded(name[: -len(_suffix(name))]), []).append(name)
            self._listings[path.parent] = listing
        return [path.parent / name for name in self._listings[path.parent].get(_folded(path.name), ())]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _suffix(name: str) -> str:
    """The extension of a name in small letters, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()


def _link_target(path: Path) -> Path | None:
    """Where a text file points that stands for a link; None where it does not."""
    try:
        if not path.is_file() or path.stat().st_size > LINK_BYTES:  # a pipe would be waited for
            return None
        text = path.read_text()
        target = path.parent / text
        return target if text and "\n" not in text and _exists(target) else None
    except (OSError, ValueError):
        return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    """Whether something lies there that is no folder; whether it may be read shows when it is opened."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False
