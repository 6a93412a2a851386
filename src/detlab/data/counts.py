"""Numbers of images and boxes of a data set by split, class and size, and a choice of images that shows them all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from detlab.data.datamodule import DetectionData
from detlab.data.flat import Records
from detlab.data.formats.source import SPLITS
from detlab.data.records import Record

SIZES = ("small", "medium", "large")
EDGES = (32.0**2, 96.0**2)  # px^2: COCO's bounds of small, medium and large


class ClassCount(NamedTuple):
    """Images and boxes of a class, or of all, by split."""

    name: str
    images: dict[str, int]  # with at least one box of the class
    boxes: dict[str, int]


class SizeCount(NamedTuple):
    """Boxes of a class, or of all, by size; crowds are left out."""

    name: str
    original: tuple[int, ...]  # small, medium, large, by the annotated area
    seen: tuple[int, ...]  # the same after resizing, as the network sees them
    sides: tuple[float, ...]  # px after resizing: 5 %, 50 % and 95 % of the square roots of the areas; empty: no box


def splits_of(data: DetectionData) -> dict[str, Records]:
    """The images of each split that the data set has of its own."""
    return {split: data.records(split) for split in SPLITS if data.has(split)}


def by_class(data: DetectionData) -> list[ClassCount]:
    """Images and boxes of all classes together, then of each class."""
    parts = splits_of(data)
    rows = [ClassCount("all", {s: len(r) for s, r in parts.items()}, {})]
    rows += [ClassCount(name, dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)) for name in data.class_names]
    for split, records in parts.items():
        rows[0].boxes[split] = sum(len(item.labels) for item in records)
        for item in records:
            for label, count in zip(*np.unique(item.labels, return_counts=True), strict=True):
                rows[label + 1].images[split] += 1
                rows[label + 1].boxes[split] += int(count)
    return rows


def without_boxes(data: DetectionData) -> dict[str, int]:
    """Images without any box by split."""
    return {split: int((records.counts == 0).sum()) for split, records in splits_of(data).items()}


class Areas(NamedTuple):
    """Areas of all boxes but crowds, px^2."""

    labels: np.ndarray  # [n]
    original: np.ndarray  # [n] as annotated
    seen: np.ndarray  # [n] after resizing


def areas_of(data: DetectionData) -> Areas:
    """Areas of the boxes of all splits."""
    records = [item for part in splits_of(data).values() for item in part]
    kept = [~item.crowd for item in records]
    area = [item.area[k] for item, k in zip(records, kept, strict=True)]
    seen = [a * magnification(data, item) for a, item in zip(area, records, strict=True)]
    labels = [item.labels[k] for item, k in zip(records, kept, strict=True)]
    return Areas(*(np.concatenate(part) if part else np.zeros(0) for part in (labels, area, seen)))


def by_size(data: DetectionData) -> list[SizeCount]:
    """Boxes by size, of all classes together, then of each class; all splits together."""
    areas = areas_of(data)
    rows = [_size_count("all", areas.original, areas.seen)]
    for label, name in enumerate(data.class_names):
        own = areas.labels == label
        rows.append(_size_count(name, areas.original[own], areas.seen[own]))
    return rows


def magnification(data: DetectionData, item: Record) -> float:
    """Factor by which resizing changes the areas of an image."""
    height, width = data.resize.target(item.size)
    return height * width / (item.size[0] * item.size[1])


def size_of(area: np.ndarray) -> np.ndarray:
    """Index into SIZES of areas in px^2."""
    return np.searchsorted(EDGES, area, side="left")


def chosen(data: DetectionData, most: int) -> list[tuple[str, Record]]:
    """At most `most` images with their split: of every split and class, with and without findings of the audit."""
    parts = splits_of(data)
    total = sum(map(len, parts.values()))
    dirty = data.report.by_file
    found: list[tuple[str, Record]] = []
    for split, records in parts.items():
        count = len(records) if total <= most else max(1, most * len(records) // total)
        found += [(split, records[row]) for row in _rows(records, count, len(data.class_names), dirty)]
    return found[:most]


def _rows(records: Sequence[Record], count: int, classes: int, dirty: Collection[object]) -> list[int]:
    """Rows of `count` images, ascending: some with findings, some of each class, the others spread evenly."""
    if count >= len(records):
        return list(range(len(records)))
    having: dict[int, list[int]] = {}
    for row, item in enumerate(records):
        for label in np.unique(item.labels):
            having.setdefault(int(label), []).append(row)
    wanted = _spread([row for row, item in enumerate(records) if item.path in dirty], count // 3)
    for label in sorted(having, key=lambda label: len(having[label])):  # rare classes first
        wanted += _spread(having[label], max(1, count // (2 * classes)))
    wanted = list(dict.fromkeys(wanted))[:count]
    others = sorted(set(range(len(records))) - set(wanted))
    return sorted([*wanted, *_spread(others, count - len(wanted))])


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """`count` of the rows at even distances, or all."""
    if count >= len(rows):
        return list(rows)
    return [rows[int(i)] for i in (np.arange(count) + 0.5) * len(rows) / max(1, count)]


def _size_count(name: str, area: np.ndarray, seen: np.ndarray) -> SizeCount:
    original, resized = (tuple(np.bincount(size_of(a), minlength=3).tolist()) for a in (area, seen))
    sides = tuple(np.quantile(np.sqrt(seen), [0.05, 0.5, 0.95]).tolist()) if len(seen) else ()
    return SizeCount(name, original, resized, sides)
