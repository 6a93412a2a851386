"""Checks between splits and between classes: images that two splits share, names that look like one."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from detlab.data.audit import EXAMPLES, AuditReport, names
from detlab.data.flat import Records
from detlab.data.images import ImageError, read_image
from detlab.system.reading import ReadError, open_regular, read_bytes

ORDER = ("train", "val", "test")
EDGE = 4096  # bytes at both ends of a file that are compared before the whole is read

MISSING = {"nan", "none", "null", "<na>", "n/a"}  # of pandas, Python, databases and spreadsheets

File = tuple[str, str]  # (split, path)
Names = list[File]  # of one inode: hard and soft links lead to the same content


def shared_images(splits: Mapping[str, Records], report: AuditReport) -> list[str]:
    """Count images of val and test whose file an earlier split has, too, and return notes on copies of other names."""
    files = []  # (split, path, name), earlier splits first
    for split in ORDER:
        part = splits.get(split)
        if part is not None:
            named = zip(part.paths(), part.names, strict=True)
            files += [(split, path, name) for path, name in named if path is not None]
    first: dict[str, str] = {}
    for split, path, name in files:
        earlier = first.setdefault(path, split)
        if earlier != split:
            report.add(split, f"image also in {earlier}", name, Path(path))
    return _copy_notes(files)


def _copy_notes(files: Sequence[tuple[str, str, str]]) -> list[str]:
    """A note for each pair of splits that share pictures under different names, byte by byte."""
    same_as = same_content([(split, path) for split, path, _ in files])
    first: dict[str, File] = {}
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for split, path, name in files:
        if path in same_as:
            earlier, twin = first.setdefault(same_as[path], (split, path))
            if earlier != split and twin != path:
                found[split, earlier].append(f"{name} = {Path(twin).name}")
    return [
        f"{len(pairs)} image{'s' if len(pairs) > 1 else ''} of {split} repeat{'' if len(pairs) > 1 else 's'} one of "
        f"{earlier} byte by byte ({names(pairs)}); results on {split} say less about new images."
        for (split, earlier), pairs in found.items()
    ]


def count_classes(train: Records | None, class_names: Sequence[str], report: AuditReport) -> None:
    """Count classes without training boxes."""
    with_boxes = set(np.unique(train.labels).tolist()) if train is not None else set()
    for label, name in enumerate(class_names):
        if with_boxes and label not in with_boxes:
            report.add("train", "class without boxes", name)


def name_notes(class_names: Sequence[str]) -> list[str]:
    """Notes on classes whose names look like one, and on a class that may be no class."""
    found = []
    groups = names_alike(class_names)
    if groups:
        pairs = names(" and ".join(group[:EXAMPLES]) + (" ..." if len(group) > EXAMPLES else "") for group in groups)
        found.append(
            f"Classes with names alike are kept apart: {pairs}; if they mean the same, rename them in the labels."
        )
    missing = [name for name in class_names if name.casefold() in MISSING]
    if missing:
        found.append(
            f"A class is called {names(missing)}, as programs write a missing value; if it is none, mend the labels or "
            "leave it out with data.classes."
        )
    return found


def names_alike(class_names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only in case, spaces, `_` and `-`, or in how Unicode composes their letters."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        plain = "".join(c for c in folded if c not in "_-" and not c.isspace())
        groups[plain or name].append(name)
    return [group for group in groups.values() if len(group) > 1]


def same_content(files: Sequence[File]) -> dict[str, str]:
    """The first file with the same bytes, for files that occur in more than one split under several paths.

    Only files whose size occurs in two splits are opened, and only those with equal ends are read as a whole; links to
    one file count as one. Pictures of a single colour are left out: they show nothing that could be learned by heart.

    Args:
        files: (split, path), in the order of splits.
    """
    inodes: dict[tuple[int, int, int], Names] = {}  # by size, device and number
    for file in files:
        try:
            found = os.stat(file[1])
        except (OSError, ValueError):
            continue
        inodes.setdefault((found.st_size, found.st_dev, found.st_ino), []).append(file)
    by_size: dict[int, list[Names]] = defaultdict(list)
    for (size, _, _), named in inodes.items():
        by_size[size].append(named)
    return {
        path: group[0][0][1]
        for sized in by_size.values()
        for ends in _of_several_splits(sized, _ends)
        for group in _of_several_splits(ends, _whole)
        if not _is_blank(group[0][0][1])
        for named in group
        for _, path in named
    }


def _of_several_splits(inodes: Sequence[Names], read: Callable[[str], bytes]) -> list[list[Names]]:
    """Groups of inodes that read alike and lie in more than one split; unreadable files are in none."""
    if not _several_splits(inodes):
        return []
    groups: dict[bytes, list[Names]] = defaultdict(list)
    for named in inodes:
        with suppress(OSError, ValueError, ReadError):
            groups[read(named[0][1])].append(named)
    return [group for group in groups.values() if _several_splits(group)]


def _several_splits(inodes: Sequence[Names]) -> bool:
    return len({split for named in inodes for split, _ in named}) > 1


def _ends(path: str) -> bytes:
    with open_regular(Path(path)) as file:
        first = file.read(EDGE)
        file.seek(-min(EDGE, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return first + file.read(EDGE)


def _is_blank(path: str) -> bool:
    """Whether a file is a picture of one colour."""
    with suppress(ImageError):
        image = read_image(Path(path))
        return bool((image == image[:, :1, :1]).all())
    return False


def _whole(path: str) -> bytes:
    return hashlib.blake2b(read_bytes(Path(path)), digest_size=16).digest()
