"""A small data set as plain facts, drawn at random: what lies where, before any file is written.

Writers of a format turn facts into files; mutations change how something is written and note what is right then: a box
keeps its place, is clipped to `want`, or is dropped under the rule `fate`.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2, px
SPLITS = ("train", "val", "test")
GONE = object()  # value of a field that is left out
NAMES = (
    *("cat", "dog", "yes", "no", "on", "off", "null", "~", "010", "1e3", "0x1F", "true", "None", "1", "-1", "1_000"),
    *("a b", "Käfer", "猫", "🚀 rocket", "x: y", "# tag", "it's", 'say "hi"', "<b>&amp;", "[1, 2]", "{a}", "=1+1"),
    *("- dash", "100%", "back\\slash", "*star", "&anchor", "!bang", "@at", "`tick`", "%41", "Cat", "e\u0301te"),
)
STEMS = (
    *("a", "b 1", "img (3)", "Ä", "猫", "a.v2", "100%", "x#1", "-dash", "000012", "IMG_0001", "no", "it's", "a+b"),
    *("a&b", "a,b", "[1]", "b 0", "7", "e\u0301", "x.jpg.rf.0a1b", "image", "labels", "train", "x 2.5", "a%20b"),
    *("sub/a", "sub/deep/c 1", "Sub 2/b"),
)
FORMATS = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".jfif": "JPEG",
    ".JPG": "JPEG",
    ".webp": "WEBP",
}


@dataclass
class Thing:
    """An object in a photo."""

    box: Corners  # as it is written, once every field is read as its writer meant it
    name: str
    crowd: bool = False
    difficult: bool = False
    want: Corners | None = None  # the right box, where it is not `box`
    fate: str | None = None  # the rule under which it is dropped
    also: list[str] = field(default_factory=list)  # further findings
    written: dict[str, Any] = field(default_factory=dict)  # fields that the writer takes instead of its own
    claimed: bool = False  # one mutation at most


@dataclass
class Photo:
    """An image."""

    stem: str
    suffix: str
    size: tuple[int, int]  # width, height of the frame of its boxes, px
    things: list[Thing]
    orientation: int = 1  # EXIF
    raw: bool = False  # the boxes were drawn without regard to the EXIF orientation
    gray: bool = False
    file: str = ""  # below the root; set by the layout
    content: bytes | None = None  # instead of a good image
    there: bool = True  # the file is written
    fate: str | None = None
    also: list[str] = field(default_factory=list)
    written: dict[str, Any] = field(default_factory=dict)
    claimed: bool = False

    def image(self) -> bytes:
        """The file."""
        if self.content is not None:
            return self.content
        turned = self.orientation >= 5 and not self.raw
        width, height = self.size[::-1] if turned else self.size
        return pixels(width, height, FORMATS[self.suffix], self.gray, self.orientation)


@dataclass
class Facts:
    """A data set, and what is right for it."""

    names: list[str]  # classes
    splits: dict[str, list[Photo]]
    layout: str = ""
    style: dict[str, Any] = field(default_factory=dict)  # how the writer writes; format-specific
    options: dict[str, Any] = field(default_factory=dict)  # of data=
    findings: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # (split, rule), beyond those of things and photos
    files: dict[str, bytes] = field(default_factory=dict)  # further files, or others instead of the writer's
    removed: list[str] = field(default_factory=list)  # files of the writer that are taken away
    links: list[str] = field(default_factory=list)  # folders that become links to others
    folders: list[str] = field(default_factory=list)  # further folders
    refused: str | None = None  # pattern of the message, if the data set must be refused
    training: bool = False  # refused by training only
    done: list[str] = field(default_factory=list)  # mutations

    def photos(self) -> Iterator[tuple[str, Photo]]:
        """Every photo with its split."""
        for split, photos in self.splits.items():
            yield from ((split, photo) for photo in photos)

    def claim_photo(self, draw: random.Random, least: int = 1) -> tuple[str, Photo] | None:
        """A photo that no mutation has touched, of a split with at least `least` photos; None if there is none."""
        free = [
            (split, p)
            for split, p in self.photos()
            if not p.claimed and not any(t.claimed for t in p.things) and len(self.splits[split]) >= least
        ]
        if not free:
            return None
        split, photo = draw.choice(free)
        photo.claimed = True
        return split, photo

    def claim_thing(self, draw: random.Random) -> tuple[Photo, Thing] | None:
        """An object that no mutation has touched; None if there is none."""
        free = [(p, t) for _, p in self.photos() if not p.claimed for t in p.things if not t.claimed]
        if not free:
            return None
        photo, thing = draw.choice(free)
        thing.claimed = True
        return photo, thing


def draw_facts(draw: random.Random, *, whole: bool, difficult: float) -> Facts:
    """A data set of one to three splits, each of one to four photos.

    Args:
        whole: corners are whole pixels.
        difficult: share of objects with that flag.
    """
    names = draw.sample(NAMES, draw.randint(1, 4))
    stems = draw.sample(STEMS, len(STEMS))
    parts = ["train", *(["val"] if draw.random() < 0.8 else []), *(["test"] if draw.random() < 0.4 else [])]
    splits = {}
    for split in parts:
        stem_count = draw.randint(1, 4)
        splits[split] = [_photo(draw, stems.pop(), names, whole, difficult) for _ in range(stem_count)]
    if draw.random() < 0.3:
        turned = draw.choice([p for photos in splits.values() for p in photos])
        turned.orientation, turned.suffix = draw.randint(2, 8), ".jpg"
    if draw.random() < 0.2:  # two files of one name in two folders
        pair = draw.choice((("same", "sub/same"), ("one/same", "two/same")))
        for photo, stem in zip(splits[draw.choice(parts)], pair, strict=False):
            photo.stem, photo.suffix, photo.orientation, photo.gray = stem, ".png", 1, False
    return Facts(names, splits)


def _photo(draw: random.Random, stem: str, names: list[str], whole: bool, difficult: float) -> Photo:
    width, height = draw.randint(24, 72), draw.randint(24, 72)
    grain = 1.0 if whole or draw.random() < 0.5 else 0.25
    boxes: list[Corners] = []
    for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4))):
        xs, ys = _side(draw, width, grain), _side(draw, height, grain)
        box = (xs[0], ys[0], xs[1], ys[1])
        if box not in boxes:
            boxes.append(box)
    things = [Thing(box, draw.choice(names), difficult=draw.random() < difficult) for box in boxes]
    suffix = draw.choice(tuple(FORMATS))
    return Photo(stem, suffix, (width, height), things, gray=draw.random() < 0.1 and suffix in (".jpg", ".png"))


def _side(draw: random.Random, length: int, grain: float) -> tuple[float, float]:
    steps = int(length / grain)
    long = draw.randint(int(3 / grain), steps)
    start = draw.randint(0, steps - long)
    return start * grain, (start + long) * grain


@cache
def pixels(width: int, height: int, kind: str, gray: bool, orientation: int) -> bytes:
    """An image file of one pattern."""
    ramp = (np.arange(width * height, dtype=np.uint32) * 7 % 251).astype(np.uint8).reshape(height, width)
    image = Image.fromarray(ramp if gray else np.repeat(ramp[..., None], 3, 2))
    more = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        more["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def put(root: Path, files: dict[str, bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
ENDS = ("\n", "\r\n", "\r")


def encoded(text: str, facts: Facts, split: str) -> bytes:
    """Text in the encoding and with the line ends of the style; a file in Windows-1252 is counted.

    UTF-16 has a byte order mark, utf-16-le and -be have none.
    """
    encoding = facts.style.get("encoding", "utf-8")
    if encoding == "cp1252" and not text.isascii():
        facts.findings[split, "text not in UTF-8"] += 1
    return text.replace("\n", facts.style.get("end", "\n")).encode(encoding)
