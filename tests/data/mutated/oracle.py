"""What must come out for given facts, and how it is compared with what did. Shares no code with the readers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.data.mutated.facts import Facts, Photo

UNSEEN = "not there"  # fate of a photo that nothing names
WRONG_SIZE = "image size differs from annotation"
TOLERANCE = 1e-3  # px
NOTES = {  # findings that lose nothing; all others are errors with data.on_error=raise
    "missing label file",
    "label without image",
    "image without a row",
    "unlisted image",
    "file that is no image",
    "image at another path",
    "image file in two entries",
    "image also in train",
    "image also in val",
    "text not in UTF-8",
    "class without boxes",
    "class that heads others",
    "corner at 0",
    "crowd box",
    "image without boxes",
    "empty image dropped",
    "grayscale image",
    "EXIF-rotated image",
    "EXIF ignored",
}


def findings(facts: Facts, classes: list[str]) -> dict[str, dict[str, int]]:
    """Cases by split and rule."""
    found = Counter(facts.findings)
    with_boxes = set()
    for split, photo in facts.photos():
        found.update((split, rule) for rule in photo.also)
        if photo.fate == UNSEEN:
            continue
        if photo.fate:
            found[split, photo.fate] += 1
            found[split, "EXIF-rotated image"] += photo.fate == WRONG_SIZE and photo.orientation != 1
            continue
        if photo.orientation != 1:
            raw = photo.raw and photo.orientation >= 5 and photo.size[0] != photo.size[1]
            found[split, "EXIF ignored" if raw else "EXIF-rotated image"] += 1
        found[split, "grayscale image"] += photo.gray
        found[split, "image without boxes"] += all(t.fate for t in photo.things)
        found[split, "empty image dropped"] += _left_out(facts, split, photo)
        for thing in photo.things:
            found.update((split, rule) for rule in [*thing.also, *([thing.fate] if thing.fate else [])])
            found[split, "crowd box"] += thing.crowd and not thing.fate
            if split == "train" and not thing.fate:
                with_boxes.add(thing.name)
    if with_boxes:
        found["train", "class without boxes"] += len(set(classes) - with_boxes)
    by_split: dict[str, dict[str, int]] = {}
    for (split, rule), count in found.items():
        if count:
            by_split.setdefault(split, {})[rule] = count
    return by_split


def items(facts: Facts) -> dict[str, list[list[Any]]]:
    """The images of each split: [file, width, height, rows], rows [x1, y1, x2, y2, name, crowd, difficult]."""
    out: dict[str, list[list[Any]]] = {}
    for split, photo in facts.photos():
        rows = [[*(t.want or t.box), t.name, t.crowd, t.difficult] for t in photo.things if not t.fate]
        if not photo.fate and not _left_out(facts, split, photo):
            out.setdefault(split, []).append([photo.file, *photo.size, sorted(rows, key=str)])
    return out


def _left_out(facts: Facts, split: str, photo: Photo) -> bool:
    """Whether data.empty=drop drops the photo."""
    return facts.options.get("empty") == "drop" and split == "train" and all(t.fate for t in photo.things)


def reduced(facts: Facts) -> bool:
    """Whether anything is lost or clipped."""
    return any(p.fate or any(t.fate or t.want for t in p.things) for _, p in facts.photos())


def differences(facts: Facts, classes: list[str], found: dict[str, Any]) -> list[str]:
    """Sentences about what differs from what is right; `found` has classes and splits with items and findings."""
    out = []
    if found["classes"] != classes:
        out.append(f"classes {found['classes']}, not {classes}")
    right, counted = items(facts), findings(facts, classes)
    for split in sorted({*right, *counted, *found["splits"]}):
        part = found["splits"].get(split, {"items": [], "findings": {}})
        want = counted.get(split, {})
        if part["findings"] != want:
            out.append(f"{split}: findings {part['findings']}, not {want}")
        out += [f"{split}: {text}" for text in _of_items(part["items"], right.get(split, []))]
    return out


def _of_items(found: list[list[Any]], right: list[list[Any]]) -> list[str]:
    got, want = sorted(found, key=str), sorted(right, key=str)
    if [item[:3] for item in got] != [item[:3] for item in want]:
        return [f"images {[item[:3] for item in got]}, not {[item[:3] for item in want]}"]
    out = []
    for a, b in zip(got, want, strict=True):
        left = list(a[3])
        for row in b[3]:
            match = next((r for r in left if r[4:] == row[4:] and _near(r[:4], row[:4])), None)
            if match is None:
                out.append(f"{b[0]} lacks {row}")
            else:
                left.remove(match)
        out += [f"{b[0]} has {row} too much" for row in left]
    return out


def _near(a: list[float], b: list[float]) -> bool:
    return all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))
