"""Finding the files that annotations name: below the root, with paths as various tools write them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

LINK_BYTES = 1000  # most bytes of a link that git wrote as a text file, which holds one path
LINK_DEPTH = 8  # most links in a row
LONGEST = 4096  # characters of a path; Linux opens none that is longer
END_PARTS = 12  # most folders, with the name, of the end of another machine's path
OUTSIDE = "data.outside_root=true follows links and paths that leave data.root, for data of your own"


def inside(root: Path, name: str | Path) -> Path | None:
    """root / name with links resolved; None if it lies outside root or is no valid path."""
    try:
        path = (root / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a loop of links
        return None
    return path if path.is_relative_to(root.resolve()) else None


def slashed(name: str) -> str:
    """A path with forward slashes, without "./" and without a drive letter."""
    if "/" not in name and "\\" not in name:
        return name.strip()
    name = name.strip().replace("\\", "/").removeprefix("file://")
    name = re.sub(r"^[A-Za-z]:(?=/)", "", name)
    return re.sub(r"(?:^|(?<=/))(?:\./+)+", "", name)


def straight(path: Path) -> Path:
    """The path without "..", where that is the same file, so that two ways to it are one path."""
    if ".." not in path.parts:
        return path
    plain = Path(os.path.normpath(path))
    try:
        return plain if plain.samefile(path) else path
    except (OSError, ValueError):
        return path


def followed(path: Path) -> Path:
    """The path with text-file links resolved: a git checkout without symlinks writes them as files with the target."""
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
    """The folder at a path, through symlinks and text-file links; None if there is none."""
    path = followed(path)
    if _is_file(path):
        path = _link_target(path) or path
    try:
        return path if path.is_dir() else None
    except (OSError, ValueError):
        return None


def files_below(folder: Path, top: Path | None = None) -> Iterator[Path]:
    """Every file below a folder, sorted, following links; hidden files and macOS's archive folders are left out.

    Args:
        top: links to folders outside of it are not followed, and given as if they were files; None follows all.
    """
    seen: set[str] = set()
    inner = top.resolve() if top is not None else None
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        if inner is not None:
            links = [f for f in folders if os.path.islink(os.path.join(place, f))]
            leaving = {f for f in links if not Path(os.path.realpath(os.path.join(place, f))).is_relative_to(inner)}
            folders[:] = [f for f in folders if f not in leaving]
            names += leaving
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


class Found(NamedTuple):
    """Result of the search for a file."""

    text: str | None  # where it lies, or should lie; None if it may not be read
    outside: bool = False  # it lies outside the root
    corrected: bool = False  # it was found at another path than the one written
    there: bool = False  # it exists

    @property
    def path(self) -> Path | None:
        """`text` as a Path, made on demand: making it takes ten times as long as the text."""
        return None if self.text is None else Path(self.text)


class Finder:
    """Finds files below a data set's folder by the names that annotations give them.

    Args:
        root: files outside of it are refused.
        folders: folders that names are relative to, in order; root is tried last.
        outside: accept files outside the root (data.outside_root).
        suffixes: file name extensions to try for names that have none of them.
    """

    def __init__(
        self, root: Path, folders: Sequence[Path], *, outside: bool = False, suffixes: Sequence[str] = ()
    ) -> None:
        self.root, self.outside, self.suffixes = root, outside, set(suffixes)
        self.folders = list(dict.fromkeys([*(followed(f) for f in folders), root]))
        self._prefixes = ["" if folder == Path() else os.path.join(folder, "") for folder in self.folders]
        self._top = root.resolve()
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._contents: dict[str, tuple[set[str], set[str]]] = {}

    def allowed(self, path: Path) -> bool:
        """Whether a file may be read."""
        if self.outside:
            return True
        try:
            return path.resolve().is_relative_to(self._top)
        except (OSError, ValueError, RuntimeError):
            return False

    def find(self, name: str) -> Found:
        """Find a file by its name: as written, else by the end of its path, in another case or with an extension."""
        left, plain = False, slashed(name)
        if not plain or "\0" in plain:
            return Found(None, outside=True)
        if len(plain) > LONGEST:
            return Found(str(self.folders[0] / "a path that is too long"))
        for path, as_written in self._candidates(name, plain):
            if not _is_file(path):
                continue
            if self.allowed(path):
                return Found(str(path), corrected=not as_written, there=True)
            left = True
        leaves = os.path.isabs(plain) or ".." in PurePosixPath(plain).parts
        if not self.outside and (left or leaves):
            return Found(None, outside=True)
        return Found(str(self.folders[0] / plain))

    def find_all(self, names: Sequence[str]) -> list[Found]:
        """Find a file for each name.

        A file at another path than the name says counts as missing if several names lead to it.
        """
        found = [self._plain(name) or self.find(name) for name in names]
        if not any(one.corrected for one in found):
            return found
        claims: dict[str | None, set[str]] = {}
        for name, one in zip(names, found, strict=True):
            claims.setdefault(one.text, set()).add(slashed(name))
        return [
            Found(str(self.folders[0] / slashed(name))) if one.corrected and len(claims[one.text]) > 1 else one
            for name, one in zip(names, found, strict=True)
        ]

    def _plain(self, name: str) -> Found | None:
        """A file that lies as written in a folder that may be read, without links; None leaves it to `find`."""
        plain = slashed(name)
        head, _, last = plain.rpartition("/")
        if "\\" in name or "\0" in name or last in ("", ".", "..") or ".." in head.split("/") or plain[0] == "/":
            return None
        if len(plain) > LONGEST or "//" in plain:
            return None
        for prefix in self._prefixes:
            inner = f"{prefix}{head}/" if head else prefix
            entries, files = self._content(inner or ".")
            if last in files:
                return Found(inner + last, there=True)
            if last in entries:
                return None
        return None

    def _content(self, folder: str) -> tuple[set[str], set[str]]:
        """The names in a folder, and those of them that are files, no links, and may be read."""
        if folder not in self._contents:
            entries: set[str] = set()
            files: set[str] = set()
            try:
                with os.scandir(folder) as found:
                    for entry in found:
                        entries.add(entry.name)
                        if entry.is_file(follow_symlinks=False):
                            files.add(entry.name)
            except (OSError, ValueError):
                pass
            self._contents[folder] = entries, files if self.allowed(Path(folder)) else set()
        return self._contents[folder]

    def _candidates(self, name: str, plain: str) -> Iterator[tuple[Path, bool]]:
        for folder in self.folders:
            if "\\" in name:
                yield folder / name, True  # a file system may allow it in names
            yield followed(folder / plain), True
        parts = [part for part in PurePosixPath(plain).parts if part not in ("/", "..")]
        ends = ends_of(parts)
        written = PurePosixPath(plain)
        if "%" in plain and parts:
            ends.append(PurePosixPath(unquote(parts[-1])))
        for end in ends:
            for folder in self.folders:
                yield followed(folder / end), False
                for found in self._listed(followed(folder / end)):
                    added = _suffix(found.name) != _suffix(end.name) and _suffix(end.name) not in self.suffixes
                    yield found, added and end == written

    def _listed(self, path: Path) -> list[Path]:
        """Files in a path's folder that have its name in another case, or with an extension that the name lacks."""
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


def ends_of(parts: Sequence[str]) -> list[PurePosixPath]:
    """The ends of a path of another machine, the longest first."""
    return [PurePosixPath(*parts[i:]) for i in range(max(0, len(parts) - END_PARTS), len(parts))]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _suffix(name: str) -> str:
    """The extension of a name in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def _link_target(path: Path) -> Path | None:
    """The target of a text file that stands for a link; None if the file is no link."""
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
    """Whether the path exists and is no folder; it may still be unreadable."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def only_named(bases: Iterable[Path], entry: object) -> bool:
    """Whether an entry is one of Roboflow's, whose yamls name ../test/images also where there are none."""
    if not isinstance(entry, str) or not slashed(entry).startswith("../"):
        return False
    ways = [slashed(entry)]
    while ways[-1].startswith("../"):
        ways.append(ways[-1][3:])
    return not any(followed(base / way).exists() for base in bases for way in ways)
