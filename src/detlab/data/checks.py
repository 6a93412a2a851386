"""Checks of every image file and every box before training; those that cannot be used are dropped and counted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from detlab.data.audit import AuditReport
from detlab.data.images import MAX_PIXELS, ImageError, ImageFacts, inspect
from detlab.data.pixels import is_deep_mode
from detlab.data.records import Record
from detlab.system.files import read_json, write_json

FACTS_VERSION = 2  # of the cached facts
PLACES = 3  # decimals of px to which boxes are compared
ROUNDING = 1e-6  # px, rounding error of a product of shares and sides
SLACK = 1.0  # px that a box may lie across the border without being counted; VOC tools differ by one
MODE_NAMES = {
    **dict.fromkeys(("L", "1"), "grayscale"),
    **dict.fromkeys(("RGBA", "RGBa", "LA", "La", "PA"), "alpha"),
    **dict.fromkeys(("F", "I"), "float or 32-bit"),
}


def audited(
    records: list[Record],
    split: str,
    report: AuditReport,
    *,
    decode: bool,
    max_pixels: int,
    cache_dir: Path | None,
    min_size: float,
    drop_empty: bool,
) -> list[Record]:
    """The images and boxes of a split that can be used.

    Args:
        records: all images of the split.
        report: gets every problem that is found.
        decode: decode every file once, so that truncated ones are found.
        max_pixels: larger images are dropped.
        cache_dir: folder of the cached checks of files; None for no cache.
        min_size: px; smaller boxes are degenerate.
        drop_empty: drop images without boxes.
    """
    records = drop_duplicates(records, split, report)
    records = check_images(records, split, report, decode=decode, max_pixels=max_pixels, cache_dir=cache_dir)
    records = check_boxes(records, split, report, min_size=min_size)
    if drop_empty:
        for item in records:
            if not len(item.labels):
                report.add(split, "empty image dropped", item.name, item.path)
        records = [item for item in records if len(item.labels)]
    return records


def check_images(
    records: list[Record],
    split: str,
    report: AuditReport,
    *,
    decode: bool = True,
    max_pixels: int = MAX_PIXELS,
    cache_dir: Path | None = None,
) -> list[Record]:
    """Check every file, drop unusable images, fill in sizes; results are cached by file size and modification time."""
    known = _Cache(cache_dir, decode, max_pixels)
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        facts = list(pool.map(lambda r: _look(r, known, decode, max_pixels), records))
    known.save()
    good = []
    for item, fact in zip(records, facts, strict=True):
        if isinstance(fact, tuple) and not isinstance(fact, ImageFacts):
            report.add(split, fact[0], f"{item.name}: {fact[1]}" if fact[1] else item.name)
            continue
        if fact is not None:
            checked = _with_facts(item, fact, split, report)
            if checked is None:
                continue
            item = checked
        good.append(item)
    return good


def check_boxes(records: list[Record], split: str, report: AuditReport, *, min_size: float) -> list[Record]:
    """Drop unusable boxes and clip those across the border; count crowds and images without boxes."""
    good = []
    for item in records:
        height, width = item.size
        boxes = item.boxes.copy()
        finite = np.isfinite(boxes).all(1) & np.isfinite(item.area)
        boxes[~finite] = 0
        sides = boxes[:, 2:] - boxes[:, :2]
        limit = np.array([width, height, width, height], np.float64)
        clipped = np.clip(boxes, 0, limit)
        inner = clipped[:, 2:] - clipped[:, :2]
        outside = finite & (sides > 0).all(1) & (inner <= 0).any(1)
        degenerate = finite & ~outside & (inner < min_size - ROUNDING).any(1)
        repeated = finite & ~outside & ~degenerate & _repeats(item)
        across = finite & ~degenerate & ~outside & (np.abs(clipped - boxes) > SLACK).any(1)
        for mask, rule in (
            (~finite, "malformed box"),
            (degenerate, "degenerate box"),
            (outside, "box outside the image"),
            (repeated, "duplicate box"),
            (across & ~repeated, "box across the border"),
            (item.crowd & ~repeated, "crowd box"),
        ):
            for row in np.nonzero(mask)[0]:
                report.add(split, rule, f"{item.name} {np.round(item.boxes[row], 1).tolist()}", item.path)
        keep = finite & ~degenerate & ~outside & ~repeated
        item = replace(item, boxes=clipped).keep(keep)
        if len(item.labels) == 0:
            report.add(split, "image without boxes", item.name, item.path)
        good.append(item)
    return good


def _repeats(item: Record) -> np.ndarray:
    """[n] bool: boxes that repeat an earlier one, with the same class and flags."""
    seen: set[tuple[object, ...]] = set()
    found = np.zeros(len(item.labels), bool)
    for row, box in enumerate(np.round(item.boxes, PLACES).tolist()):
        key = (*box, int(item.labels[row]), bool(item.crowd[row]), bool(item.difficult[row]))
        found[row] = key in seen
        seen.add(key)
    return found


def count_across(splits: Mapping[str, list[Record]], class_names: Sequence[str], report: AuditReport) -> None:
    """Count problems between splits: training images that are also in val or test, classes without training boxes."""
    train = splits.get("train", [])
    own = {item.path for item in train if item.path is not None}
    for split in ("val", "test"):
        for item in splits.get(split, []):
            if item.path in own:
                report.add(split, "image also in train", item.name, item.path)
    with_boxes = {int(label) for item in train for label in item.labels}
    for label, name in enumerate(class_names):
        if with_boxes and label not in with_boxes:
            report.add("train", "class without boxes", name)


def drop_duplicates(records: list[Record], split: str, report: AuditReport) -> list[Record]:
    """Keep the first image of every id; files that two entries name are counted."""
    seen: set[int] = set()
    files: set[Path] = set()
    good = []
    for item in records:
        if item.path is not None and item.path in files and item.id not in seen:
            report.add(split, "image file in two entries", item.name, item.path)
        files.update((item.path,) if item.path is not None else ())
        if item.id in seen:
            report.add(split, "duplicate image id", f"id {item.id} ({item.name})")
        else:
            seen.add(item.id)
            good.append(item)
    return good


def _look(item: Record, known: _Cache, decode: bool, max_pixels: int) -> ImageFacts | tuple[str, str] | None:
    """Facts of a file; (rule, reason) if it cannot be used; None for generated images."""
    if item.path is None:
        return None
    try:
        found = item.path.stat()
    except (OSError, ValueError):
        return "missing image", ""
    if not stat.S_ISREG(found.st_mode):
        return "unreadable image", "is no regular file, such as a pipe"
    key = f"{item.path.resolve()}:{found.st_size}:{found.st_mtime_ns}"
    fact = known.get(key)
    if fact is None:
        try:
            fact = inspect(item.path, decode=decode, max_pixels=max_pixels)
        except ImageError as error:
            return "unreadable image", str(error)
        known.put(key, fact)
    return fact


def _with_facts(item: Record, fact: ImageFacts, split: str, report: AuditReport) -> Record | None:
    rotate = True
    if fact.rotated:
        raw_only = item.size == fact.raw_size and item.size != fact.size
        rotate = not raw_only
        report.add(split, "EXIF ignored" if raw_only else "EXIF-rotated image", item.name, item.path)
    size = fact.size if rotate else fact.raw_size
    if item.size != (0, 0) and item.size != size:
        report.add(
            split,
            "image size differs from annotation",
            f"{item.name}: {size[1]}x{size[0]}, annotated {item.size[1]}x{item.size[0]}",
        )
        return None
    if fact.mode in MODE_NAMES:
        report.add(split, f"{MODE_NAMES[fact.mode]} image", item.name, item.path)
    elif is_deep_mode(fact.mode):
        report.add(split, "16-bit image", item.name, item.path)
    if fact.frames > 1:
        report.add(split, "image of several frames", f"{item.name} ({fact.frames})", item.path)
    return replace(item, size=size, rotate=rotate)


class _Cache:
    """Facts of files checked before, in one JSON file per kind of check; malformed entries are checked again."""

    def __init__(self, folder: Path | None, decode: bool, max_pixels: int) -> None:
        kind = f"{FACTS_VERSION}-{'full' if decode else 'header'}-{max_pixels}"
        self.path = folder / f"images-{kind}.json" if folder else None
        loaded = read_json(self.path) if self.path and self.path.is_file() else None
        self.facts: dict[str, object] = loaded if isinstance(loaded, dict) else {}
        self.changed = False

    def get(self, key: str) -> ImageFacts | None:
        match self.facts.get(_digest(key)):
            case [[int(a), int(b)], [int(c), int(d)], str(mode), bool(rotated), int(frames)]:
                return ImageFacts((a, b), (c, d), mode, rotated, frames)
        return None

    def put(self, key: str, fact: ImageFacts) -> None:
        self.facts[_digest(key)] = list(fact)
        self.changed = True

    def save(self) -> None:
        if self.path and self.changed:
            with suppress(OSError):  # without the cache, the next run only takes longer
                write_json(self.path, self.facts, compact=True)


def _digest(key: str) -> str:
    return hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
