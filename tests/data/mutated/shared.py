"""Mutations of what the annotations say, the same in every format: geometry, images that cannot be used, options."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.data.mutated.facts import Facts, Photo, Thing, pixels

Mutation = Callable[[Facts, random.Random], bool]  # False: does not apply to these facts


def zero_side(facts: Facts, draw: random.Random) -> bool:
    """A side of length 0, below 1 px, or negative."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    x1, y1, x2, y2 = found[1].box
    side = draw.choice((0.0, 0.5, -1.0, -2.0))
    found[1].box = (x1, y1, x1 + side, y2) if draw.random() < 0.5 else (x1, y1, x2, y1 + side)
    found[1].fate = "degenerate box"
    return True


def outside(facts: Facts, draw: random.Random) -> bool:
    """A box beyond one of the four borders."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    (width, height), (x1, y1, x2, y2) = found[0].size, found[1].box
    off = draw.choice((0.25, 1, 5, 1e6))
    found[1].box = draw.choice(
        (
            (width + off, y1, width + off + 9, y2),
            (x1, height + off, x2, height + off + 9),
            (-9 - off, y1, -off, y2),
            (x1, -9 - off, x2, -off),
        )
    )
    found[1].fate = "box outside the image"
    return True


def across(facts: Facts, draw: random.Random) -> bool:
    """A box over one or two borders, by more than 1 px, which is counted, or by less, which is rounding."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    (width, height), (x1, y1, x2, y2) = found[0].size, found[1].box
    beyond = draw.choice((0.25, 0.5, 0.75, 2.0, 7.5, 500.0))
    found[1].box, found[1].want = draw.choice(
        (
            ((x1, y1, width + beyond, y2), (x1, y1, width, y2)),
            ((x1, y1, x2, height + beyond), (x1, y1, x2, height)),
            ((-beyond, y1, x2, y2), (0.0, y1, x2, y2)),
            ((-beyond, -beyond, x2, y2), (0.0, 0.0, x2, y2)),
            ((-beyond, -beyond, width + beyond, height + beyond), (0.0, 0.0, width, height)),
        )
    )
    if beyond > 1:
        found[1].also.append("box across the border")
    return True


def repeated(facts: Facts, draw: random.Random) -> bool:
    """A row that stands twice or three times."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    photo, thing = found
    for _ in range(draw.randint(1, 2)):
        place = draw.randint(photo.things.index(thing) + 1, len(photo.things))
        photo.things.insert(place, replace(thing, fate="duplicate box", also=[], written={}))
    return True


def near_repeat(facts: Facts, draw: random.Random) -> bool:
    """The same box with another class, or one that differs by half a pixel: both are meant."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    photo, thing = found
    x1, y1, x2, y2 = thing.box
    others = [name for name in facts.names if name != thing.name]
    if others and draw.random() < 0.5:
        photo.things.append(replace(thing, name=draw.choice(others), also=[], written={}))
    else:
        inner = (x1, y1, x2 - (1.0 if x2.is_integer() else 0.25), y2)
        if any(t.box == inner for t in photo.things):
            return False
        photo.things.append(replace(thing, box=inner, also=[], written={}))
    return True


def broken_image(facts: Facts, draw: random.Random) -> bool:
    """An image file that is empty, something else, or cut."""
    found = facts.claim_photo(draw)
    if found is None:
        return False
    photo = found[1]
    photo.content = draw.choice((b"", b"no image", b"\0" * 99, photo.image()[: len(photo.image()) // 3]))
    photo.fate = "unreadable image"
    return True


def no_boxes(facts: Facts, draw: random.Random) -> bool:
    """A photo that loses its objects before anything is written."""
    found = facts.claim_photo(draw)
    if found is None:
        return False
    found[1].things.clear()
    return True


def wrong_suffix(facts: Facts, draw: random.Random) -> bool:
    """A PNG file with the extension of another format."""
    found = facts.claim_photo(draw)
    if found is None or found[1].orientation != 1 or found[1].gray:
        return False
    found[1].content = pixels(*found[1].size, "PNG", False, 1)
    return True


def linked(facts: Facts, draw: random.Random) -> bool:
    """The folder of images is a link."""
    top = {photo.file.removesuffix(photo.stem + photo.suffix).partition("/")[0] for _, photo in facts.photos()}
    facts.links = sorted(top - {""})
    return bool(facts.links)


def in_train_too(facts: Facts, draw: random.Random) -> bool:
    """An image of train that val has, too."""
    free = [p for p in facts.splits["train"] if not p.claimed and not p.fate and not any(t.claimed for t in p.things)]
    folders = {p.file.removesuffix(p.stem + p.suffix) for _, p in facts.photos()}
    if not free or len(folders) > 1 or "val" not in facts.splits or facts.layout in ("no lists", "beside"):
        return False
    photo = draw.choice(free)
    if not photo.things:  # data.empty=drop may drop it from train
        return False
    known = facts.style.get("categories", {"val": facts.names})["val"]
    if any(t.name not in known for t in photo.things):
        return False
    photo.claimed = True
    twin = replace(photo, also=[*photo.also, "image also in train"], written=dict(photo.written))
    twin.things = [replace(t, also=list(t.also), written=dict(t.written)) for t in photo.things]
    facts.splits["val"].append(twin)
    return True


def drop_empty(facts: Facts, draw: random.Random) -> bool:
    """data.empty=drop."""
    facts.options["empty"] = "drop"
    return True


def style(name: str, *values: Any) -> Mutation:
    """A way of writing, the same for the whole data set."""

    def mutation(facts: Facts, draw: random.Random) -> bool:
        if name in facts.style:
            return False
        facts.style[name] = draw.choice(values)
        return True

    mutation.__name__ = name.replace(" ", "_")
    return mutation


def bare(facts: Facts, draw: random.Random) -> bool:
    """UTF-16 without a byte order mark, which can be told in Latin text."""
    if "encoding" in facts.style or not _encodes(facts, "latin-1"):
        return False
    facts.style["encoding"] = draw.choice(("utf-16-le", "utf-16-be"))
    return True


def windows(facts: Facts, draw: random.Random) -> bool:
    """Text in Windows-1252, if it can be; each file that needs it is counted."""
    if "encoding" in facts.style or not _encodes(facts, "cp1252"):
        return False
    facts.style |= {"encoding": "cp1252", "ascii": False}
    return True


def _encodes(facts: Facts, encoding: str) -> bool:
    try:
        "".join([*facts.names, *(p.stem for _, p in facts.photos())]).encode(encoding)
    except UnicodeError:
        return False
    return True


def spoiled(thing: Thing, rule: str, **written: object) -> None:
    """Fields that cannot be read, and the rule that must count it."""
    thing.fate = rule
    thing.written.update(written)


def lost(photo: Photo, rule: str) -> None:
    """The photo is dropped."""
    photo.fate = rule


HARMLESS: list[Mutation] = [near_repeat, no_boxes, wrong_suffix, linked]
REDUCING: list[Mutation] = [zero_side, outside, across, repeated, broken_image, in_train_too, drop_empty]
