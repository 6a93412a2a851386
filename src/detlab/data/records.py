"""Annotations of one image, and of a split, in original pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detlab.data.audit import MANY
from detlab.data.audit import names as listed
from detlab.errors import DataError
from detlab.system.text import shortened

LONGEST_NAME = 10_000  # characters of a class's name; a reader of metrics.csv allows cells of 131,072
QUIET = np.errstate(over="ignore", invalid="ignore")  # for boxes at the end of a float's range, which will be dropped

UNKNOWN = (0, 0)  # size of an image that its annotation does not give


@dataclass(frozen=True)
class Record:
    """One image. Boxes are xyxy in original pixels of the image as displayed (EXIF rotation applied)."""

    id: int
    name: str  # for reports and file_name of results
    path: Path | None  # None for generated images
    size: tuple[int, int]  # (height, width); UNKNOWN until the file has been checked
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))  # [n, 4] float64
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [n]
    area: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [n] px^2
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # [n]
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # [n]
    rotate: bool = True  # apply the EXIF rotation; False where the annotation was made on the raw pixels

    def keep(self, rows: np.ndarray) -> Record:
        """The same image with only these boxes (mask or index)."""
        names = ("boxes", "labels", "area", "crowd", "difficult")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


@QUIET
def record(*, id: int, name: str, path: Path | None, size: tuple[int, int], objects: list[dict[str, Any]]) -> Record:
    """Make a record from objects with keys box, label and, if known, area, crowd, difficult."""
    boxes = np.array([o["box"] for o in objects], np.float64).reshape(-1, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1) if len(boxes) else np.zeros(0)
    given = [o.get("area") for o in objects]
    area = np.array([s if a is None else a for a, s in zip(given, sides, strict=True)], np.float64)
    return Record(
        id=id,
        name=name,
        path=path,
        size=size,
        boxes=boxes,
        labels=np.array([o["label"] for o in objects], np.int64),
        area=area,
        crowd=np.array([bool(o.get("crowd", False)) for o in objects], bool),
        difficult=np.array([bool(o.get("difficult", False)) for o in objects], bool),
    )


@dataclass(frozen=True)
class Classes:
    """Class names in label order, and their category ids in the annotation files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a name that no table, picture or name of a metric can hold.

        Raises:
            DataError: the name's beginning and end.
        """
        longest = max(self.names, key=len, default="")
        if len(longest) > LONGEST_NAME:
            raise DataError(
                f"The class {shortened(longest, 80)!r} has a name of more than {LONGEST_NAME:,} characters; give it a "
                f"shorter one in the annotations."
            )

    def chosen(self, wanted: list[str] | None) -> tuple[Classes, dict[int, int]]:
        """Only the wanted classes, in the wanted order, and the map from old label to new.

        Raises:
            DataError: a wanted class is unknown, or is named twice.
        """
        if wanted is None:
            return self, {i: i for i in range(len(self.names))}
        wanted = [str(name) for name in wanted]
        places = {name: i for i, name in enumerate(self.names)}
        unknown = next((name for name in wanted if name not in places), None)
        if unknown is not None:
            raise DataError(
                f"data.classes names {unknown!r}, which the data set lacks; it has {listed(self.names, MANY)}."
            )
        twice, count = Counter(wanted).most_common(1)[0] if wanted else ("", 0)
        if count > 1:
            raise DataError(f"data.classes names {twice!r} twice; name each class once.")
        old = [places[name] for name in wanted]
        return (
            Classes(tuple(wanted), tuple(self.ids[i] for i in old)),
            {o: n for n, o in enumerate(old)},
        )
