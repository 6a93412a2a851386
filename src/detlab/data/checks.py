"""Checks of every image file and every box before training; those that cannot be used are dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detlab.data.audit import AuditReport
from detlab.data.file_checks import Unusable, facts_of
from detlab.data.flat import Records
from detlab.data.images import MAX_PIXELS, ImageFacts
from detlab.data.pixels import is_deep_mode
from detlab.data.records import QUIET, UNKNOWN, Record

PART = 20_000  # images whose boxes are checked at once, which bounds the memory
MIXER = np.int64(-7046029254386353131)  # an odd number whose bits look random (2^64 / golden ratio)
PLACES = 3  # decimals of px to which boxes are compared
ROUNDING = 1e-6  # px, rounding error of a product of shares and sides
SLACK = 1.0  # px that a box may lie across the border without being counted; VOC tools differ by one
MODE_NAMES = {
    **dict.fromkeys(("L", "1"), "grayscale"),
    **dict.fromkeys(("RGBA", "RGBa", "LA", "La", "PA"), "alpha"),
    **dict.fromkeys(("F", "I"), "float or 32-bit"),
}


def audited(
    records: Sequence[Record],
    split: str,
    report: AuditReport,
    *,
    decode: bool,
    max_pixels: int,
    cache_dir: Path | None,
    min_size: float,
    drop_empty: bool,
) -> Records:
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
    checked = drop_duplicates(records, split, report)
    checked = check_images(checked, split, report, decode=decode, max_pixels=max_pixels, cache_dir=cache_dir)
    checked = check_boxes(checked, split, report, min_size=min_size)
    if drop_empty:
        for row in np.nonzero(checked.counts == 0)[0].tolist():
            report.add(split, "empty image dropped", checked[row].name, checked[row].path)
        checked = checked.take(np.nonzero(checked.counts)[0])
    return checked


def check_images(
    records: Sequence[Record],
    split: str,
    report: AuditReport,
    *,
    decode: bool = True,
    max_pixels: int = MAX_PIXELS,
    cache_dir: Path | None = None,
) -> Records:
    """Check every file, drop unusable images, fill in sizes; results are cached by file size and modification time."""
    records = Records.of(records)
    facts = facts_of(records.paths(), decode=decode, max_pixels=max_pixels, cache_dir=cache_dir, title=split)
    rotate = records.rotate.copy()
    sizes: list[tuple[int, int]] = [(height, width) for height, width in records.sizes.tolist()]
    good = []
    for row, fact in enumerate(facts):
        if isinstance(fact, Unusable):
            name = records.names[row]
            report.add(split, fact.rule, f"{name}: {fact.reason}" if fact.reason else name)
            continue
        if fact is not None:
            plain = fact.mode == "RGB" and not fact.rotated and not fact.several
            if plain and sizes[row] in (fact.size, UNKNOWN):
                sizes[row] = fact.size
            else:
                item = _with_facts(records[row], fact, split, report)
                if item is None:
                    continue
                sizes[row], rotate[row] = item.size, item.rotate
        good.append(row)
    checked = np.array(sizes, np.int64).reshape(-1, 2)
    if checked.max(initial=0) < 2**31:
        checked = checked.astype(np.int32)
    return replace(records, sizes=checked, rotate=rotate).take(np.array(good, np.int64))


def check_boxes(records: Sequence[Record], split: str, report: AuditReport, *, min_size: float) -> Records:
    """Drop unusable boxes and clip those across the border; count crowds and images without boxes."""
    records = Records.of(records)
    keep = np.ones(len(records.labels), bool)
    boxes = records.boxes.copy()
    for first in range(0, len(records), PART):
        part = records[first : first + PART]
        span = slice(int(records.starts[first]), int(records.starts[min(first + PART, len(records))]))
        keep[span], boxes[span] = _checked_boxes(part, split, report, min_size)
    return replace(records, boxes=boxes).keep_boxes(keep)


@QUIET
def _checked_boxes(records: Records, split: str, report: AuditReport, min_size: float) -> tuple[np.ndarray, np.ndarray]:
    """[G] which boxes are kept, and [G, 4] all boxes clipped."""
    rows = records.box_rows
    boxes = np.ascontiguousarray(records.boxes.T).reshape(2, 2, -1)  # (low, high), (x, y), box: long rows are quick
    finite = np.isfinite(boxes).all((0, 1)) & np.isfinite(records.area)
    boxes[:, :, ~finite] = 0
    sides = boxes[1] - boxes[0]
    clipped = np.clip(boxes, 0, records.sizes.T[::-1, rows].astype(np.float64))
    inner = clipped[1] - clipped[0]
    outside = finite & (sides > 0).all(0) & (inner <= 0).any(0)
    degenerate = finite & ~outside & (inner < min_size - ROUNDING).any(0)
    repeated = finite & ~outside & ~degenerate & _repeats(records, rows)
    across = finite & ~degenerate & ~outside & (np.abs(clipped - boxes) > SLACK).any((0, 1))
    found = {
        "malformed box": ~finite,
        "degenerate box": degenerate,
        "box outside the image": outside,
        "duplicate box": repeated,
        "box across the border": across & ~repeated,
        "crowd box": records.crowd & ~repeated,
    }
    keep = finite & ~degenerate & ~outside & ~repeated
    left = np.bincount(rows[keep], minlength=len(records))
    dirty = np.zeros(len(records), bool)
    dirty[rows[np.logical_or.reduce(list(found.values()))]] = True
    for row in np.nonzero(dirty | (left == 0))[0].tolist():
        item, start = records[row], int(records.starts[row])
        for rule, mask in found.items():
            for box in np.nonzero(mask[start : start + len(item.labels)])[0]:
                sides = [round(side, 1) for side in item.boxes[box].tolist()]
                report.add(split, rule, f"{item.name} {sides}", item.path)
        if not left[row]:
            report.add(split, "image without boxes", item.name, item.path)
    return keep, clipped.reshape(4, -1).T


@QUIET
def _repeats(records: Records, rows: np.ndarray) -> np.ndarray:
    """[G] bool: boxes that repeat an earlier one of their image, with the same class and flags."""
    places = np.round(records.boxes, PLACES) + 0.0  # without a sign of zero
    kinds = np.stack([rows, records.labels, records.crowd, records.difficult])
    columns = [*places.T.copy().view(np.int64), *kinds.astype(np.int64)]
    mixed = np.zeros(len(rows), np.int64)
    for column in columns:
        mixed = (mixed ^ column) * MIXER
        mixed ^= mixed >> 29
    order = np.argsort(mixed, kind="stable")
    alike = np.zeros(len(rows), bool)  # these may repeat another; most that do not have another number
    same = np.diff(mixed[order]) == 0
    alike[order[1:][same]] = alike[order[:-1][same]] = True
    found = np.zeros(len(rows), bool)
    seen: set[tuple[object, ...]] = set()
    for box in np.nonzero(alike)[0].tolist():
        key = (*places[box].tolist(), *kinds[:, box].tolist())
        found[box] = key in seen
        seen.add(key)
    return found


def drop_duplicates(records: Sequence[Record], split: str, report: AuditReport) -> Records:
    """Keep the first image of every id; files that two entries name are counted."""
    records = Records.of(records)
    paths = records.paths()
    if len(set(records.ids.tolist())) == len(records) == len(set(paths)):
        return records
    seen: set[int] = set()
    files: set[str] = set()
    good = []
    for row, (key, path) in enumerate(zip(records.ids.tolist(), paths, strict=True)):
        if path is not None and path in files and key not in seen:
            report.add(split, "image file in two entries", records.names[row], Path(path))
        files.update((path,) if path is not None else ())
        if key in seen:
            report.add(split, "duplicate image id", f"id {key} ({records.names[row]})")
        else:
            seen.add(key)
            good.append(row)
    return records.take(np.array(good, np.int64))


def _with_facts(item: Record, fact: ImageFacts, split: str, report: AuditReport) -> Record | None:
    rotate = True
    if fact.rotated:
        raw_only = item.size == fact.raw_size and item.size != fact.size
        rotate = not raw_only
        report.add(split, "EXIF ignored" if raw_only else "EXIF-rotated image", item.name, item.path)
    size = fact.size if rotate else fact.raw_size
    if item.size != UNKNOWN and item.size != size:
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
    if fact.several:
        report.add(split, "image of several frames", item.name, item.path)
    return replace(item, size=size, rotate=rotate)
