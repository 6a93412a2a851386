"""Interface of annotation formats, and what they share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from detlab.data.audit import AuditReport, printable
from detlab.data.images import MAX_PIXELS, ImageError, read_image
from detlab.data.places import OUTSIDE, Found, straight
from detlab.data.records import Classes, Record
from detlab.errors import DataError
from detlab.system.reading import ReadError, Text, read_text

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # of folders and files
AUTO = "auto"  # value of an option that uses whichever of the usual names exists
Splits = Mapping[str, Sequence[Record]]  # train, val, test, as far as the source has them


class Source(ABC):
    """A data set in some format. `notes` tells the user which files and folders `read` chose for an `auto` option."""

    max_pixels = MAX_PIXELS
    cache_dir: Path | None = None  # where a format may keep what it parsed
    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Download missing files; called in one process only."""
        return

    @abstractmethod
    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        """Classes in label order, and the records of each split.

        Args:
            report: gets the problems that only the format can see.
            wanted: the splits to read; others need not exist.

        Raises:
            DataError: a file or key is missing, or of the wrong type.
        """

    def image(self, item: Record) -> Tensor:
        """uint8 RGB [3, H, W] of a record.

        Raises:
            ImageError: the file is missing or has changed since the audit; the message names it.
        """
        if item.path is None:
            raise ImageError(f"{item.name} has no file, and {type(self).__name__} does not draw it.")
        try:
            return read_image(item.path, rotate=item.rotate, max_pixels=self.max_pixels)
        except ImageError as error:
            raise ImageError(
                f"{item.path} could be read when training began and cannot any more: {error}; see whether data.root is "
                f"still there, then go on with resume=true."
            ) from error


def folder(root: str | Path | None, option: str, kind: str) -> Path:
    """An existing folder given by an option, absolute, with links not resolved.

    Raises:
        DataError: the option is not set or names no folder.
    """
    if root is None or not str(root).strip():  # an unset variable of the shell must not mean the current folder
        raise DataError(f"{option} is not set; give the folder of your {kind}, {option}=PATH.")
    path = Path(root).expanduser().absolute()
    try:
        found = path.is_dir()
    except (OSError, ValueError):
        found = False
    if not found:
        raise DataError(f"{option}={root} is not a folder; give the folder of your {kind}.")
    return path


def text_of(path: Path, report: AuditReport, split: str) -> Text:
    """A text file's content; the report counts files whose encoding had to be guessed.

    Raises:
        ReadError: the file is no regular file, or cannot be read.
    """
    try:
        text = read_text(path)
    except ReadError:
        raise
    except (OSError, ValueError) as error:
        raise ReadError(f"cannot be read ({error})") from error
    if text.guessed:
        report.add(split, "text not in UTF-8", path.name)
    return text


def placed(found: Found, name: str, split: str, report: AuditReport) -> Path | None:
    """The path of an image that was searched; an unexpected place is counted in the report."""
    text = placed_text(found, name, split, report)
    return None if text is None else Path(text)


def placed_text(found: Found, name: str, split: str, report: AuditReport) -> str | None:
    """As `placed`, as text."""
    if found.text is None:
        report.add(split, "image outside the root", name)
        return None
    if found.corrected:
        report.add(split, "image at another path", f"{name} -> {os.path.basename(found.text)}")
    return str(straight(Path(found.text))) if ".." in found.text else found.text


def unique(names: Iterable[str], file: str) -> tuple[str, ...]:
    """Class names as a tuple.

    Raises:
        DataError: a name is empty or occurs twice.
    """
    found: dict[str, int] = {}
    for i, name in enumerate(printable(name.strip()) for name in names):
        if not name:
            raise DataError(f"{file}: class {i} has no name; give it one.")
        if name in found:
            raise DataError(
                f"{file} names two classes {name!r} (places {found[name]} and {i}); rename one, or give both "
                f"the same id, so that their results can be told apart."
            )
        found[name] = i
    return tuple(found)


def left_the_root(option: str, value: str, root: Path) -> DataError:
    """The error about an option whose path lies outside the root."""
    return DataError(f"{option}={printable(value[:200])} leaves {root}; {OUTSIDE}.")
