"""Finding dirty data before training: every kind of dirt has a rule, a count and the name of an example."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detlab.data.images import MAX_PIXELS, SIXTEEN_BIT, ImageError, ImageFacts, inspect
from detlab.data.records import Record
from detlab.errors import DataError

EXAMPLES = 5  # names kept per rule
SLACK = 1.0  # px a box may pass the border before it counts as dirt; VOC tools differ by one
MODE_NAMES = {"L": "grayscale", "1": "grayscale", "LA": "grayscale", "RGBA": "alpha", "PA": "alpha"}


class Rule(NamedTuple):
    """What is done about one kind of dirt."""

    action: str
    error: bool  # refused with data.on_error=raise


RULES: dict[str, Rule] = {
    "missing image": Rule("image dropped", True),
    "unreadable image": Rule("image dropped", True),
    "image outside the root": Rule("image dropped", True),
    "image size differs from annotation": Rule("image dropped", True),
    "duplicate image id": Rule("later image dropped", True),
    "duplicate annotation id": Rule("later box dropped", True),
    "annotation without image": Rule("box dropped", True),
    "malformed box": Rule("box dropped", True),
    "degenerate box": Rule("box dropped", True),
    "box outside the image": Rule("box dropped", True),
    "box across the border": Rule("box clipped", True),
    "unknown class": Rule("box dropped", True),
    "missing annotation": Rule("image dropped", True),
    "crowd box": Rule("kept; never a target, never a false positive", False),
    "image without boxes": Rule("kept (data.empty=keep)", False),
    "empty image dropped": Rule("image dropped (data.empty=drop)", False),
    "grayscale image": Rule("converted to RGB", False),
    "alpha image": Rule("laid on black", False),
    "16-bit image": Rule("scaled to 8 bits", False),
    "EXIF-rotated image": Rule("rotated; boxes are taken in the displayed frame", False),
    "EXIF ignored": Rule("not rotated; the annotation has the raw size", False),
}


@dataclass
class Finding:
    """One rule's tally in one split."""

    split: str
    rule: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class AuditReport:
    """Tallies of dirt by split and rule."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, str], Finding] = {}

    def add(self, split: str, rule: str, example: str) -> None:
        """Count one case; `rule` must be one of RULES."""
        finding = self.findings.setdefault((split, rule), Finding(split, rule))
        assert rule in RULES, rule
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(printable(example))

    def count(self, rule: str) -> int:
        """Cases of a rule over all splits."""
        return sum(f.count for f in self.findings.values() if f.rule == rule)

    def as_rows(self) -> list[tuple[str, str, str, str, str]]:
        """(split, rule, count, action, examples), errors first."""
        ordered = sorted(self.findings.values(), key=lambda f: (not RULES[f.rule].error, f.rule, f.split))
        return [
            (
                f.split,
                f.rule,
                str(f.count),
                RULES[f.rule].action,
                ", ".join(f.examples) + (" ..." if f.count > len(f.examples) else ""),
            )
            for f in ordered
        ]

    def __str__(self) -> str:
        return "\n".join(" | ".join(row) for row in self.as_rows()) or "no dirt found"

    def refuse(self) -> None:
        """Raise if any finding is an error (data.on_error=raise).

        Raises:
            DataError: names the worst rule, its examples and the option.
        """
        errors = [f for f in self.findings.values() if RULES[f.rule].error]
        if errors:
            worst = max(errors, key=lambda f: f.count)
            total = sum(f.count for f in errors)
            raise DataError(
                f"The data has {total} errors, most of them '{worst.rule}' ({worst.count}, such as "
                f"{', '.join(worst.examples)}); mend the files, or set data.on_error=drop to go on without them."
            )


def check_images(
    records: list[Record],
    split: str,
    report: AuditReport,
    *,
    decode: bool = True,
    max_pixels: int = MAX_PIXELS,
    cache_dir: Path | None = None,
) -> list[Record]:
    """Look at every file; drop what cannot be used and fill in sizes. Results are cached by size and time of change."""
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
    """Drop boxes that cannot be learned from and clip those across the border; count crowds and empty images."""
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
        degenerate = finite & ~outside & (inner < min_size).any(1)
        across = finite & ~degenerate & ~outside & (np.abs(clipped - boxes) > SLACK).any(1)
        for mask, rule in (
            (~finite, "malformed box"),
            (degenerate, "degenerate box"),
            (outside, "box outside the image"),
            (across, "box across the border"),
            (item.crowd, "crowd box"),
        ):
            for row in np.nonzero(mask)[0]:
                report.add(split, rule, f"{item.name} {np.round(item.boxes[row], 1).tolist()}")
        keep = finite & ~degenerate & ~outside
        item = replace(item, boxes=clipped).keep(keep)
        if len(item.labels) == 0:
            report.add(split, "image without boxes", item.name)
        good.append(item)
    return good


def drop_duplicates(records: list[Record], split: str, report: AuditReport) -> list[Record]:
    """Keep the first image of every id."""
    seen: set[int] = set()
    good = []
    for item in records:
        if item.id in seen:
            report.add(split, "duplicate image id", f"id {item.id} ({item.name})")
        else:
            seen.add(item.id)
            good.append(item)
    return good


def printable(text: str) -> str:
    """Text without halves of surrogate pairs, which json may hold and no terminal or file takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def inside(root: Path, name: str) -> Path | None:
    """root / name, or None where that lies outside root, through links too, or is no path at all."""
    try:
        path = (root / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a circle of links
        return None
    return path if path.is_relative_to(root.resolve()) else None


def _look(item: Record, known: _Cache, decode: bool, max_pixels: int) -> ImageFacts | tuple[str, str] | None:
    """Facts of a file; (rule, reason) where it cannot be used; None for generated images."""
    if item.path is None:
        return None
    try:
        stat = item.path.stat()
    except OSError:
        return "missing image", ""
    key = f"{item.path}:{stat.st_size}:{stat.st_mtime_ns}"
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
        report.add(split, "EXIF ignored" if raw_only else "EXIF-rotated image", item.name)
    size = fact.size if rotate else fact.raw_size
    if item.size != (0, 0) and item.size != size:
        report.add(
            split,
            "image size differs from annotation",
            f"{item.name}: {size[1]}x{size[0]}, annotated {item.size[1]}x{item.size[0]}",
        )
        return None
    if fact.mode in SIXTEEN_BIT:
        report.add(split, "16-bit image", item.name)
    elif fact.mode in MODE_NAMES:
        report.add(split, f"{MODE_NAMES[fact.mode]} image", item.name)
    return replace(item, size=size, rotate=rotate)


class _Cache:
    """Facts of files seen before, in one JSON file per kind of look."""

    def __init__(self, folder: Path | None, decode: bool, max_pixels: int) -> None:
        self.path = folder / f"images-{'full' if decode else 'header'}-{max_pixels}.json" if folder else None
        self.facts: dict[str, list] = {}
        self.changed = False
        if self.path and self.path.is_file():
            try:
                loaded = json.loads(self.path.read_text())
                self.facts = loaded if isinstance(loaded, dict) else {}
            except (OSError, ValueError):
                self.facts = {}

    def get(self, key: str) -> ImageFacts | None:
        found = self.facts.get(_digest(key))
        if found is None:
            return None
        return ImageFacts(tuple(found[0]), tuple(found[1]), found[2], found[3])

    def put(self, key: str, fact: ImageFacts) -> None:
        self.facts[_digest(key)] = list(fact)
        self.changed = True

    def save(self) -> None:
        if not (self.path and self.changed):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.facts))
            temporary.replace(self.path)
        except OSError:
            return  # a cache that cannot be written costs time, nothing else


def _digest(key: str) -> str:
    return hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()


def names(items: Iterable[str], most: int = EXAMPLES) -> str:
    """Up to `most` names in a row."""
    listed = list(items)
    return ", ".join(listed[:most]) + (" ..." if len(listed) > most else "")
