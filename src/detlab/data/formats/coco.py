"""COCO json annotations: any file with images, annotations and categories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from detlab.data.audit import AuditReport, inside, printable
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import Source, Splits, folder
from detlab.data.records import Classes, Record, record
from detlab.errors import DataError
from detlab.ranges import OptionsOf


class Coco(Source):
    """One json file per split, with its folder of images.

    Args:
        root: folder that all paths are relative to and may not leave.
        annotations: {train, val, test: json file or null}.
        images: {train, val, test: folder of images or null for root}.
    """

    def __init__(self, *, root: str | None, annotations: dict[str, str | None], images: dict[str, str | None]) -> None:
        self.root, self.annotations, self.images = root, annotations, images

    def read(self, report: AuditReport) -> tuple[Classes, Splits]:
        root = folder(self.root, "data.root", "images and COCO json files")
        documents = {
            split: _load(root, name, f"data.annotations.{split}") for split, name in self.annotations.items() if name
        }
        if not documents:
            raise DataError("data.annotations names no file; give data.annotations.train=FILE.json.")
        categories: dict[int, str] = {}
        for split, document in documents.items():
            for category in _list(document, "categories", self.annotations[split]):
                categories[_int(category, "id", self.annotations[split])] = printable(str(category.get("name")))
        ids = tuple(sorted(categories))
        classes = Classes(tuple(categories[i] for i in ids), ids)
        labels = {category: label for label, category in enumerate(ids)}
        splits = {}
        for split, document in documents.items():
            images = folder(root / (self.images.get(split) or "."), f"data.images.{split}", "images")
            file = self.annotations[split]
            splits[split] = _records(document, root, images, labels, split, report, file)
        return classes, splits


def coco(
    *,
    root: str | None = None,
    annotations: dict[str, str | None],
    images: dict[str, str | None],
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A COCO data set; `loading` goes to `DetectionData`."""
    return DetectionData(source=Coco(root=root, annotations=annotations, images=images), **loading)


def _load(root: Path, name: str, option: str) -> dict[str, Any]:
    path = (root / Path(name).expanduser()).resolve()
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{option}={name} is not a file under data.root={root}; give its path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{option}={name} is not readable as json ({str(error)[:200]}).") from error
    if not isinstance(document, dict):
        raise DataError(f"{option}={name} holds a {type(document).__name__}, not a COCO object with 'images'.")
    return document


def _list(document: dict[str, Any], key: str, file: str) -> list[dict[str, Any]]:
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} has no list of objects under {key!r}; it is not a COCO annotation file.")
    return rows


def _int(row: dict[str, Any], key: str, file: str) -> int:
    value = row.get(key)
    if not _whole(value):
        raise DataError(f"{file}: {key!r} of {str(row)[:80]} is not a whole number of 64 bits.")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _records(
    document: dict[str, Any],
    root: Path,
    images: Path,
    labels: dict[int, int],
    split: str,
    report: AuditReport,
    file: str,
) -> list[Record]:
    rows = _list(document, "images", file)
    known = {_int(row, "id", file) for row in rows}
    objects: dict[int, list[dict[str, Any]]] = {i: [] for i in known}
    seen: set[str] = set()
    for row in _list(document, "annotations", file):
        image_id, category, own = row.get("image_id"), row.get("category_id"), row.get("id")
        name = f"annotation {str(own)[:40]}"
        if not _whole(image_id) or image_id not in known:
            report.add(split, "annotation without image", f"{name} (image_id {str(image_id)[:40]})")
        elif not _whole(category) or category not in labels:
            report.add(split, "unknown class", f"{name} (category_id {str(category)[:40]})")
        elif own is not None and str(own) in seen:
            report.add(split, "duplicate annotation id", name)
        else:
            seen.add(str(own))
            box = _box(row.get("bbox"))
            if box is None:
                report.add(split, "malformed box", f"{name} {str(row.get('bbox'))[:60]}")
                continue
            objects[image_id].append(
                {
                    "box": box,
                    "label": labels[category],
                    "area": _number(row.get("area")),
                    "crowd": bool(row.get("iscrowd", 0)),
                }
            )
    records = []
    for row in rows:
        name = str(row.get("file_name"))
        path = inside(images, name)
        if path is None or not path.is_relative_to(root):
            report.add(split, "image outside the root", name)
            continue
        size = row.get("height"), row.get("width")
        known_size = all(_whole(side) and side > 0 for side in size)
        records.append(
            record(
                id=row["id"],
                name=name,
                path=path,
                size=size if known_size else (0, 0),
                objects=objects[row["id"]],
            )
        )
    return sorted(records, key=lambda r: r.id)


def _box(value: Any) -> list[float] | None:
    """COCO's (x, y, w, h) as xyxy; None where it is no row of four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(v) for v in value]
    if None in numbers:
        return None
    x, y, w, h = numbers
    return [x, y, x + w, y + h]


def _number(value: Any) -> float | None:
    """A json number as float; None for anything else, and for whole numbers beyond a float's range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
