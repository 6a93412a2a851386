"""Checks between splits and between classes: images that two splits share, names that look like one."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detlab.data.audit import EXAMPLES, AuditReport, names
from detlab.data.flat import Records
from detlab.data.images import ImageError, read_image
from detlab.system.reading import ReadError, open_regular, read_bytes

ORDER = ("train", "val", "test")
EDGE = 4096  # bytes at both ends of a file that are compared before the whole is read

File = tuple[str, str]  # (split, path)


def count_shared(splits: Mapping[str, Records], report: AuditReport) -> None:
    """Count images of val and test whose file an earlier split has, too."""
    first: dict[str, str] = {}
    for split, path, name in _files(splits):
        earlier = first.setdefault(path, split)
        if earlier != split:
            report.add(split, f"image also in {earlier}", name, Path(path))


def copy_notes(splits: Mapping[str, Records]) -> list[str]:
    """A note for each pair of splits that share pictures under different names, byte by byte."""
    files = list(_files(splits))
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


def _files(splits: Mapping[str, Records]) -> Iterator[tuple[str, str, str]]:
    """(split, path, name) of every file, earlier splits first."""
    for split in ORDER:
        part = splits.get(split)
        if part is not None:
            named = zip(part.paths(), part.names, strict=True)
            yield from ((split, path, name) for path, name in named if path is not None)


def count_classes(train: Records | None, class_names: Sequence[str], report: AuditReport) -> None:
    """Count classes without training boxes."""
    with_boxes = set(np.unique(train.labels).tolist()) if train is not None else set()
    for label, name in enumerate(class_names):
        if with_boxes and label not in with_boxes:
            report.add("train", "class without boxes", name)


def name_notes(class_names: Sequence[str]) -> list[str]:
    """A note on classes whose names look like one."""
    groups = names_alike(class_names)
    if not groups:
        return []
    pairs = names(" and ".join(group[:EXAMPLES]) + (" ..." if len(group) > EXAMPLES else "") for group in groups)
    return [f"Classes with names alike are kept apart: {pairs}; if they mean the same, rename them in the labels."]


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
    by_size: dict[int, list[_Found]] = defaultdict(list)
    for split, path in files:
        with suppress(OSError, ValueError):
            found = os.stat(path)
            by_size[found.st_size].append(_Found(split, path, (found.st_dev, found.st_ino)))
    return {
        file.path: group[0].path
        for sized in by_size.values()
        for ends in _of_several_splits(sized, _ends)
        for group in _of_several_splits(ends, _whole)
        if not _is_blank(group[0].path)
        for file in group
    }


class _Found(NamedTuple):
    split: str
    path: str
    inode: tuple[int, int]  # device and number


def _of_several_splits(files: Sequence[_Found], read: Callable[[str], bytes]) -> list[list[_Found]]:
    """Groups of files that read alike and lie in more than one split; unreadable files are in none."""
    if len({file.split for file in files}) < 2:
        return []
    known: dict[tuple[int, int], bytes] = {}
    groups: dict[bytes, list[_Found]] = defaultdict(list)
    for file in files:
        with suppress(OSError, ValueError, ReadError):
            if file.inode not in known:
                known[file.inode] = read(file.path)
            groups[known[file.inode]].append(file)
    return [group for group in groups.values() if len({file.split for file in group}) > 1]


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
