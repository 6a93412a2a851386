"""Mutations of YOLO data sets."""

from __future__ import annotations

import random

from tests.data.mutated.facts import ENCODINGS, ENDS, Facts
from tests.data.mutated.oracle import UNSEEN
from tests.data.mutated.shared import Mutation, bare, lost, spoiled, style, windows
from tests.data.mutated.yolo import LISTS, WITHOUT_YAML

NO_ROW = (
    *("{n} 0.5 0.5 0.5", "{n} 0.5 0.5 0.2 0.2 0.9", "{n} nan 0.5 0.2 0.2", "{n} 0.5 inf 0.2 0.2", "x 0.5 0.5 0.2 0.2"),
    *("{n}.5 0.5 0.5 0.2 0.2", "{n},0.5,0.5,0.2,0.2", "{n} 0,5 0,5 0,2 0,2", "{n}", "{n} 0.5 0.5 0.2 1e999", "# note"),
    *(
        "{n} 0.1 0.1 0.9 0.1 0.9",
        "{n} 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 2 0.5 0.4 1",
        "{n} 0.5 0.5 0.2 None",
        "nan 0 0 1 1",
    ),
)


def paths(facts: Facts, draw: random.Random) -> bool:
    """Lists of images with paths of other kinds."""
    if facts.layout not in LISTS:
        return False
    facts.style["path"] = draw.choice(("./{}", ".\\{}", "  {} ", "/content/set/{}", "C:\\set\\{}", "data/{}"))
    if facts.style["path"].startswith(("/", "C", "d")):
        for _, photo in facts.photos():
            photo.also.append("image at another path")
    return True


def key_points(facts: Facts, draw: random.Random) -> bool:
    """Rows with key points, and the yaml that says so."""
    if facts.layout in WITHOUT_YAML or "shapes" in facts.style or "more" in facts.style:
        return False
    count, each = draw.randint(1, 3), draw.choice((2, 3))
    facts.style |= {"points": [0.5] * (count * each), "more": f"kpt_shape: [{count}, {each}]", "shapes": ("box",)}
    return True


def companions(facts: Facts, draw: random.Random) -> bool:
    """Files that usually lie beside images and labels."""
    for _, photo in facts.photos():
        for place in (photo.file, photo.written["label"]):
            folder = place.rpartition("/")[0]
            for name in ("labels.cache", ".DS_Store", "Thumbs.db", "notes.md", "README.txt"):
                facts.files[f"{folder}/{name}"] = b"1. A note.\n"
    return True


HARMLESS: list[Mutation] = [
    style("figures", True),
    style("class", ("{}.0",), ("{}", "0{}", "+{}"), ("{}.000000", "{}")),
    style("between", "\t", "  ", " \t"),
    style("line", "{} ", "  {}", "{}\t"),
    style("shapes", ("polygon",), ("polygon", "box")),
    style("blank", "\n\n", "\n  \n", " \n"),
    style("end", *ENDS),
    style("encoding", *ENCODINGS),
    style("names", "file", "dict", "lines", "block", "reversed"),
    style("plain", False),
    style("nc", True),
    style("validation", True),
    style("root", ".", "null", "~", "/content/datasets/x", "../elsewhere", "C:\\data\\x", "''", "./"),
    style("entry", "./{}", "{}/", "[{}]", "'{}'"),
    style("begin", "# made by x\n", "---\n", "%YAML 1.1\n---\n", "\n\n"),
    style("more", "download: |\n  rm -rf /\n  exit", "license: none\nurl: 'http://x.org/?a=b#c'", "roboflow: {a: 1}"),
    bare,
    windows,
    paths,
    key_points,
    companions,
]


def no_row(facts: Facts, draw: random.Random) -> bool:
    """A row that is no box."""
    found = facts.claim_thing(draw) if "points" not in facts.style else None
    if found is not None:
        spoiled(found[1], "malformed box", row=draw.choice(NO_ROW))
    return found is not None


def no_class(facts: Facts, draw: random.Random) -> bool:
    """A class that the yaml does not have."""
    found = facts.claim_thing(draw)
    if found is not None:
        spoiled(found[1], "unknown class", **{"class": draw.choice((99, -1, "9e9", len(facts.names), 2**62))})
    return found is not None


def image_gone(facts: Facts, draw: random.Random) -> bool:
    """An image without a file."""
    found = facts.claim_photo(draw, least=2)
    if found is None:
        return False
    photo = found[1]
    photo.there = False
    facts.folders.append(photo.file.removesuffix(photo.stem + photo.suffix))
    if facts.layout in LISTS:
        leaves = facts.style.get("path", "{}").startswith(("/", "C"))
        photo.also = [rule for rule in photo.also if rule != "image at another path"]
        lost(photo, "image outside the root" if leaves else "missing image")
    else:
        photo.fate = UNSEEN
    return True


def label_gone(facts: Facts, draw: random.Random) -> bool:
    """An image without a label file, or with a folder in its place."""
    found = facts.claim_photo(draw, least=2)
    if found is None:
        return False
    split, photo = found
    others = [p for p in facts.splits[split] if p is not photo and not p.fate and p.written["label"]]
    if not others and split != "test":
        return False
    for other in others[:1]:
        other.claimed = True  # a split without any label file is refused
    if draw.random() < 0.7:
        photo.things.clear()
        photo.also.append("missing label file")
    else:
        facts.folders.append(photo.written["label"])
        lost(photo, "broken annotation")
    photo.written["label"] = None
    return True


def listed_twice(facts: Facts, draw: random.Random) -> bool:
    """A line of a list that repeats."""
    found = facts.claim_photo(draw) if facts.layout in LISTS else None
    if found is not None:
        found[1].written["copies"] = 1
        found[1].also += ["image listed twice", *(r for r in found[1].also if r == "image at another path")]
    return found is not None


def listed_for_nothing(facts: Facts, draw: random.Random) -> bool:
    """A line of a list without an image."""
    if facts.layout not in LISTS:
        return False
    split = draw.choice(list(facts.splits))
    line, rule = draw.choice((("images/gone.jpg", "missing image"), ("../../gone/x.jpg", "image outside the root")))
    facts.style["lines"] = {split: [line]}
    facts.findings[split, rule] += 1
    return True


def no_picture(facts: Facts, draw: random.Random) -> bool:
    """A file among the images that is none."""
    split, photo = draw.choice(list(facts.photos()))
    if facts.layout in LISTS:
        return False
    facts.files[photo.file.rpartition("/")[0] + "/clip.mp4"] = b"\0" * 99
    facts.findings[split, "file that is no image"] += 1
    return True


REDUCING: list[Mutation] = [*(no_row, no_class, image_gone, label_gone, listed_twice, listed_for_nothing, no_picture)]
