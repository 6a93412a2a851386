"""The rows of a COCO file, read piece by piece: annotations as flat arrays, and as objects only where they are odd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from detlab.data.progress import Progress
from detlab.errors import DataError
from detlab.system.json_stream import NotStreamedError, stream_object
from detlab.system.memory import without_collector

Row = dict[str, Any]  # an object of a json file, not checked yet
LISTS = ("images", "annotations", "categories")
OF_IMAGES = ("id", "file_name", "height", "width")  # keys that are kept
OF_BOXES = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
VALUES_OF_BOXES = itemgetter(*OF_BOXES)
NUMBERS = {int, float}
NOT_GIVEN = math.nan  # area of a box whose row gives none


@dataclass(frozen=True, eq=False)
class Boxes:
    """Annotations whose values have the types of COCO's own files, in the order of the file."""

    row: np.ndarray  # [G] int64, place in the file
    id: np.ndarray  # [G] int64
    image: np.ndarray  # [G] int64, id
    category: np.ndarray  # [G] int64, id
    box: np.ndarray  # [G, 4] float64 x, y, width, height
    area: np.ndarray  # [G] float64; not finite where none is given
    crowd: np.ndarray  # [G] bool

    @classmethod
    def joined(cls, parts: list[Boxes]) -> Boxes:
        """One after the other."""
        parts = [_none(), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass
class Rows:
    """What a COCO file lists."""

    images: list[Row] = field(default_factory=list)
    categories: list[Row] = field(default_factory=list)
    boxes: Boxes = field(default_factory=lambda: _none())
    odd: dict[int, Row] = field(default_factory=dict)  # other annotations by their place in the file


def read_rows(path: Path, name: str) -> Rows | None:
    """The rows of a file; None where it must be read as a whole, to be understood or refused."""
    rows, parts, count = Rows(), [], 0
    seen: set[str] = set()
    try:
        with without_collector(), Progress(f"reading {name}", path.stat().st_size) as shown:
            for key, value in stream_object(path, LISTS, shown.advance):
                if key not in LISTS:
                    continue
                seen.add(key)
                if not isinstance(value, list) or set(map(type, value)) - {dict}:
                    return None
                if key == "annotations":
                    parts += list(_parts(value, count, rows.odd))
                    count += len(value)
                else:
                    into = rows.images if key == "images" else rows.categories
                    into += map(_short_image, value) if key == "images" else value
    except (NotStreamedError, OSError, ValueError):
        return None
    rows.boxes = Boxes.joined(parts)
    return rows if seen == set(LISTS) else None


def rows_of(content: Row, name: str) -> Rows:
    """The rows of a file that was read as a whole.

    Raises:
        DataError: a list is missing, or does not hold objects.
    """
    images, annotations, categories = (_list(content, key, name) for key in LISTS)
    odd: dict[int, Row] = {}
    return Rows(images, categories, Boxes.joined(list(_parts(annotations, 0, odd))), odd)


def _list(document: Row, key: str, file: str) -> list[Row]:
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} has no list of objects under {key!r}; it is not a COCO annotation file.")
    return rows


def _short_image(row: Row) -> Row:
    """An image's row without its links and dates; as it is, if its id will be complained of."""
    return {key: row[key] for key in OF_IMAGES if key in row} if type(row.get("id")) is int else row


def _parts(rows: list[Row], first: int, odd: dict[int, Row]) -> Iterator[Boxes]:
    """Rows as arrays; those that are odd are added to `odd`."""
    whole = _plain(rows, first)
    if whole is not None:
        yield whole
        return
    good = []
    for i, row in enumerate(rows):
        one = _plain([row], first + i)
        if one is None:
            odd[first + i] = {key: row[key] for key in OF_BOXES if key in row}
        else:
            good.append(one)
    if good:
        yield Boxes.joined(good) if len(good) > 1 else good[0]


def _plain(rows: list[Row], first: int) -> Boxes | None:
    """Rows as arrays; None if one of them has values of other types than COCO's own files."""
    ids, images, categories, boxes, area, crowd = _columns(rows)
    if set(map(type, chain(ids, images, categories, crowd))) - {int} or set(crowd) - {0, 1}:
        return None
    if set(map(type, boxes)) - {list} or set(map(len, boxes)) - {4}:
        return None
    sides = list(chain.from_iterable(boxes))
    if set(map(type, sides)) - NUMBERS or set(map(type, area)) - NUMBERS:
        return None
    try:
        keys, of_image, of_class = (np.array(column, np.int64) for column in (ids, images, categories))
        box, px = np.array(sides, np.float64).reshape(-1, 4), np.array(area, np.float64)
    except OverflowError:  # an integer of more than 64 bits
        return None
    if not np.isfinite(box).all():
        return None
    return Boxes(np.arange(first, first + len(rows)), keys, of_image, of_class, box, px, np.array(crowd, bool))


def _columns(rows: list[Row]) -> Sequence[Sequence[Any]]:
    """The values of rows by key of OF_BOXES; None, or what COCO takes, for those that are not given."""
    try:
        return list(zip(*map(VALUES_OF_BOXES, rows), strict=True)) or [[]] * len(OF_BOXES)
    except KeyError:
        missing = {"area": NOT_GIVEN, "iscrowd": 0}
        return [[row.get(key, missing.get(key)) for row in rows] for key in OF_BOXES]


def _none() -> Boxes:
    no = np.zeros(0, np.int64)
    return Boxes(no, no, no, no, np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
