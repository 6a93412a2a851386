"""Where annotations and images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor

from detlab.data.audit import AuditReport
from detlab.data.images import MAX_PIXELS, ImageError, read_image
from detlab.data.records import Classes, Record
from detlab.errors import DataError

Splits = dict[str, list[Record]]  # train, val, test; those the source has


class Source(ABC):
    """A data set in some format."""

    max_pixels = MAX_PIXELS

    def prepare(self) -> None:
        """Download what is missing; called in one process."""
        return

    @abstractmethod
    def read(self, report: AuditReport) -> tuple[Classes, Splits]:
        """All annotations, in label order; dirt that only the format knows goes into the report.

        Raises:
            DataError: a file or key is missing, or of the wrong type.
        """

    def image(self, item: Record) -> Tensor:
        """uint8 RGB [3, H, W] of a record.

        Raises:
            ImageError: the file has gone or changed since the audit; names it.
        """
        try:
            return read_image(item.path, rotate=item.rotate, max_pixels=self.max_pixels)
        except ImageError as error:
            raise ImageError(
                f"{item.path} could be read when training began and cannot any more: {error}; see whether data.root is "
                f"still there, then go on with resume=true."
            ) from error


def folder(root: str | Path | None, option: str, kind: str) -> Path:
    """An existing folder given by an option.

    Raises:
        DataError: the option is empty or names no folder.
    """
    if root is None:
        raise DataError(f"{option} is not set; give the folder of your {kind}, {option}=PATH.")
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        raise DataError(f"{option}={root} is not a folder; give the folder of your {kind}.")
    return path
