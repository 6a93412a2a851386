"""The records of a COCO file, from its rows."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detlab.data.audit import AuditReport, printable
from detlab.data.flat import BOX_FIELDS, LABEL, Records, Texts, spans, starts_of
from detlab.data.formats.coco_rows import Row, Rows
from detlab.data.formats.source import placed_text
from detlab.data.places import Finder, slashed
from detlab.data.records import UNKNOWN, Classes
from detlab.data.values import flag, number, whole, words
from detlab.errors import DataError

LARGEST_AREA = 1e10  # px^2, the end of COCO's range of all areas
Key = int | str  # an id: an integer if it can be read as one, else the text


class Document(NamedTuple):
    """One json file."""

    name: str  # as the option gives it
    path: Path
    rows: Rows
    categories: dict[Key, str]
    headings: dict[str, str]  # class name -> supercategory


class Reader:
    """The records of one file."""

    def __init__(self, document: Document, classes: Classes, finder: Finder, split: str, report: AuditReport) -> None:
        self.document, self.finder, self.split, self.report = document, finder, split, report
        labels = {name: i for i, name in enumerate(classes.names)}
        self.labels = {key: labels[name] for key, name in document.categories.items() if name in labels}
        self.paths: dict[Key, str | None] = {}  # of images by id

    def records(self) -> Records:
        """Images with their boxes, by id."""
        rows = self.document.rows
        keys = [self._image_key(row) for row in rows.images]
        numbers = _numbers(keys)
        paths = self._paths(keys)
        self.paths = dict(zip(keys, paths, strict=True))
        groups = {key: i for i, key in enumerate(self.paths)}  # images with one id share their boxes
        group, boxes = self._boxes(groups)
        order = np.argsort(group, kind="stable")
        used = np.array([i for i, path in enumerate(paths) if path is not None], np.int64)
        used = used[np.argsort(np.array([numbers[keys[i]] for i in used.tolist()], np.int64), kind="stable")]
        counts = np.bincount(group, minlength=len(groups))
        places, starts = spans(starts_of(counts), np.array([groups[keys[i]] for i in used.tolist()], np.int64))
        places = order[places]
        found = [(rows.images[i], paths[i]) for i in used.tolist()]
        folders: dict[str, int] = {}
        return Records(
            ids=np.array([numbers[keys[i]] for i in used.tolist()], np.int64),
            names=Texts.of(printable(str(row["file_name"]).replace("\\", "/")) for row, _ in found),
            folder=np.array([folders.setdefault(_folder(path), len(folders)) for _, path in found], np.int32),
            folders=tuple(folders),
            files=Texts.of(os.path.basename(path) for _, path in found if path is not None),
            sizes=np.array([_size(row) for row, _ in found], np.int64).reshape(-1, 2),
            rotate=np.ones(len(found), bool),
            starts=starts,
            **{name: boxes[name][places] for name in BOX_FIELDS},
        )

    def _boxes(self, groups: Mapping[Key, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The group of each usable box, and its fields, in the order of the file; findings about the others."""
        given = self.document.rows.boxes
        images, at = np.unique(given.image, return_inverse=True)
        group = np.array([groups.get(key, -1) for key in images.tolist()], np.int64)[at]
        categories, at = np.unique(given.category, return_inverse=True)
        label = np.array([self.labels.get(key, -1) for key in categories.tolist()], np.int64)[at]
        good = (group >= 0) & (label >= 0)
        odd = dict(self.document.rows.odd)
        for i in np.nonzero(~good)[0].tolist():
            ids = {"id": given.id[i], "image_id": given.image[i], "category_id": given.category[i]}
            odd[int(given.row[i])] = {key: int(value) for key, value in ids.items()}
        checked = [(row, self._object(odd[row], groups)) for row in sorted(odd)]
        others = [(row, found) for row, found in checked if found is not None]
        row = np.concatenate([given.row[good], np.array([row for row, _ in others], np.int64)])
        order = np.argsort(row)

        def merged(plain: np.ndarray, name: str) -> np.ndarray:
            if not others:
                return plain
            values = np.array([found[name] for _, found in others], plain.dtype)
            return np.concatenate([plain, values.reshape(-1, *plain.shape[1:])])[order]

        with np.errstate(over="ignore"):
            corners = np.concatenate([given.box[good, :2], given.box[good, :2] + given.box[good, 2:]], 1)
        fields = {
            "boxes": merged(corners, "box"),
            "labels": merged(label[good].astype(LABEL), "label"),
            "area": merged(given.area[good], "area"),
            "crowd": merged(given.crowd[good], "crowd"),
        }
        with np.errstate(over="ignore", invalid="ignore"):
            sides = (fields["boxes"][:, 2:] - fields["boxes"][:, :2]).prod(1)
        area = fields["area"]  # of other areas, COCO's metric would count no box of the sort at all
        fields["area"] = np.where((area >= 0) & (area <= LARGEST_AREA), area, sides)
        fields["difficult"] = np.zeros(len(row), bool)
        return merged(group[good], "group"), fields

    def _image_key(self, row: Row) -> Key:
        key = id_of(row.get("id"))
        if key is None:
            raise DataError(
                f"{self.document.name}: 'id' of {words(row, 80)} is no whole number of 64 bits, and no text."
            )
        return key

    def _paths(self, keys: list[Key]) -> list[str | None]:
        """The file of each image; None, and a finding, if none may be read, or two files share its id."""
        names = [row.get("file_name") for row in self.document.rows.images]
        named: dict[Key, set[str]] = {key: set() for key in _repeated(keys)}
        for key, name in zip(keys, names, strict=True) if named else ():
            if key in named:
                named[key].add(slashed(name) if isinstance(name, str) else "")
        usable: dict[int, str] = {}
        for i, (key, name) in enumerate(zip(keys, names, strict=True)):
            if not isinstance(name, str) or not name.strip():
                self.report.add(self.split, "missing image", f"image id {words(key)} has no file_name")
            elif len(named.get(key, ())) > 1:
                self.report.add(self.split, "image id of two files", f"id {words(key)} ({name})")
            else:
                usable[i] = name
        found = dict(zip(usable, self.finder.find_all(list(usable.values())), strict=True))
        placed_at = {i: placed_text(found[i], name, self.split, self.report) for i, name in usable.items()}
        return [placed_at.get(i) for i in range(len(keys))]

    def _object(self, row: Row, images: Mapping[Key, int]) -> Row | None:
        """A box with its image; None, and a finding in the report, if it cannot be used."""
        image, category = id_of(row.get("image_id")), id_of(row.get("category_id"))
        name = f"annotation {words(row.get('id'), 40)}"
        path = self.paths.get(image) if image is not None else None
        file = None if path is None else Path(path)
        if image is None or image not in images:
            self.report.add(
                self.split, "annotation without image", f"{name} (image_id {words(row.get('image_id'), 40)})"
            )
        elif category is None or category not in self.labels:
            example = f"{name} (category_id {words(row.get('category_id'), 40)})"
            self.report.add(self.split, "unknown class", example, file)
        elif (box := _box(row.get("bbox"))) is None:
            self.report.add(self.split, "malformed box", f"{name} {words(row.get('bbox'))}", file)
        else:
            crowd = flag(row.get("iscrowd"))
            if crowd is None:
                example = f"{name} (iscrowd {words(row['iscrowd'], 40)})"
                self.report.add(self.split, "unclear flag", example, file)
            area = number(row.get("area"))
            area = math.nan if area is None else area
            return {
                "group": images[image],
                "box": box,
                "label": self.labels[category],
                "area": area,
                "crowd": bool(crowd),
            }
        return None


def _repeated(keys: list[Key]) -> set[Key]:
    """Ids that occur more than once."""
    if len(set(keys)) == len(keys):
        return set()
    return {key for key, count in Counter(keys).items() if count > 1}


def _numbers(keys: list[Key]) -> dict[Key, int]:
    """Integer ids as they are; each text id gets the next free number."""
    used = {key for key in keys if isinstance(key, int)}
    fresh = (i for i in itertools.count(1) if i not in used)
    return {key: key if isinstance(key, int) else next(fresh) for key in dict.fromkeys(keys)}


def _folder(path: str | None) -> str:
    return os.path.dirname(path).rstrip("/") if path is not None else ""


def _size(row: Row) -> tuple[int, int]:
    """(height, width) as annotated; UNKNOWN where that is no size."""
    sides = whole(row.get("height")) or 0, whole(row.get("width")) or 0
    return sides if min(sides) > 0 else UNKNOWN


def id_of(value: object) -> Key | None:
    """An id: 1, 1.0 and "1" are the same; other text stays text; None if it is neither."""
    found = whole(value)
    if found is not None:
        return found
    return value if isinstance(value, str) and value.strip() else None


def _box(value: object) -> list[float] | None:
    """COCO's (x, y, w, h) as xyxy; None if it is not a list of four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, w, h = (number(v) for v in value)
    if x is None or y is None or w is None or h is None:
        return None
    return [x, y, x + w, y + h]
