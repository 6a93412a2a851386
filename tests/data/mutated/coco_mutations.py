"""Mutations of COCO files."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

from tests.data.mutated.facts import ENCODINGS, ENDS, GONE, Facts
from tests.data.mutated.shared import Mutation, bare, lost, spoiled, style, windows

NO_NUMBER = ("x", "nan", float("nan"), float("inf"), -float("inf"), None, True, [], {"x": 1}, "1,5", 10**400, "", "1_0")
NO_BOX = (GONE, None, [], [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, "1 2 3 4", 7)


def other_ids(facts: Facts, draw: random.Random) -> bool:
    """Category ids differ between the files, are text or far apart; a file may lack classes that it does not use."""
    kind = draw.choice((int, str, float, "cat-{}".format))
    for split, photos in facts.splits.items():
        used = {t.name for p in photos for t in p.things}
        names = [n for n in facts.names if n in used or draw.random() < 0.7] or facts.names[:1]
        numbers = draw.sample((0, 1, 2, 3, 5, 9, 90, 1000, 2**31, 2**50), len(names))
        facts.style["categories"][split] = {n: kind(i) for n, i in zip(names, numbers, strict=True)}
    return True


def crowd(facts: Facts, draw: random.Random) -> bool:
    """A crowd."""
    found = facts.claim_thing(draw)
    if found is not None:
        found[1].crowd = True
    return found is not None


def raw_size(facts: Facts, draw: random.Random) -> bool:
    """An image with an EXIF orientation whose boxes were drawn on the pixels as stored."""
    for _, photo in facts.photos():
        if photo.orientation >= 5 and photo.size[0] != photo.size[1] and "sizes" not in facts.style:
            facts.style["sizes"] = ({},)
            photo.raw = True
            return True
    return False


def moved(facts: Facts, draw: random.Random) -> bool:
    """Names of images with the paths of another machine, or in another case or form of letters."""
    if "path" in facts.style:
        return False
    ways = ("/home/me/set/{}", "C:\\set\\{}", "../../set/{}", "elsewhere/{}", "case")
    way = draw.choice(ways)
    if way == "case":
        letters = draw.choice((str.swapcase, lambda n: unicodedata.normalize("NFC", n)))
        facts.style["path"] = (lambda n: n[: n.rfind("/") + 1] + letters(n[n.rfind("/") + 1 :]),)
    else:
        facts.style["path"] = (way.format,)
    change = facts.style["path"][0]
    for _, photo in facts.photos():
        name = photo.stem + photo.suffix
        if change(name) != name:
            photo.also.append("image at another path")
    return True


HARMLESS: list[Mutation] = [
    style("figures", True),
    style("id", str, float, "img-{}".format, "{:012d}".format),
    style("row id", lambda n: 1, lambda n: n % 2, lambda n: None, str, "row {}".format),
    style("order", True),
    style("shuffled", True),
    style("flags", True),
    style("polygons", True),
    style("attributes", True),
    style("category twice", True),
    style("ascii", False),
    style("indent", 1, 2, "\t"),
    style("end", *ENDS),
    style("encoding", *ENCODINGS),
    bare,
    windows,
    style("supercategory", ("none",), ("self",), ("animal", "none", None), ("",)),
    style("extra", {"info": None, "licenses": []}, {"info": {"year": "2020"}, "videos": [None]}, {"type": "instances"}),
    style("sizes", ({"height": 0, "width": 0},), ({"height": None}, {"width": GONE}, {}), ({"height": "?"}, {})),
    style("path", ("./{}".format, ".\\{}".format, " {}".format, "{} ".format, str)),
    other_ids,
    crowd,
    raw_size,
    moved,
]


def no_number(facts: Facts, draw: random.Random) -> bool:
    """A bbox that is none, or a number in it that is none."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    x1, y1, x2, y2 = found[1].box
    box: Any = [x1, y1, x2 - x1, y2 - y1]
    if draw.random() < 0.6:
        box[draw.randrange(4)] = draw.choice(NO_NUMBER)
    else:
        box = draw.choice(NO_BOX)
    spoiled(found[1], "malformed box", bbox=box)
    return True


def no_class(facts: Facts, draw: random.Random) -> bool:
    """A category id that the file does not have."""
    found = facts.claim_thing(draw)
    if found is not None:
        spoiled(found[1], "unknown class", category_id=draw.choice((77, -1, None, GONE, 1.5, True, "x", [1], 10**30)))
    return found is not None


def no_image(facts: Facts, draw: random.Random) -> bool:
    """An image id that the file does not have."""
    found = facts.claim_thing(draw)
    if found is not None:
        value = draw.choice((77777, -1, None, GONE, 1.5, False, "x", {}, 10**30))
        spoiled(found[1], "annotation without image", image_id=value)
    return found is not None


def unclear(facts: Facts, draw: random.Random) -> bool:
    """A flag that says neither yes nor no."""
    found = facts.claim_thing(draw)
    if found is not None:
        found[1].also.append("unclear flag")
        found[1].written["iscrowd"] = draw.choice(("perhaps", [1], "??", {"a": 1}))
    return found is not None


def image_gone(facts: Facts, draw: random.Random) -> bool:
    """An image without a file, or a row without its name."""
    found = facts.claim_photo(draw)
    if found is None:
        return False
    split, photo = found
    if sum(p.stem.rpartition("/")[2] == photo.stem.rpartition("/")[2] for _, p in facts.photos()) > 1:
        alike = [p for p in facts.splits[split] if p.stem.endswith("same")]
        if "path" in facts.style or len(alike) < 2:  # the other one is at "another path" then, which is counted
            return False
    facts.folders.append(photo.file.removesuffix(photo.stem + photo.suffix))
    photo.also = [rule for rule in photo.also if rule != "image at another path"]
    if draw.random() < 0.6:
        photo.there = False
        away = facts.style.get("path", (str,))[0](photo.stem)
        outside = away.startswith(("/", "C:", ".."))
        lost(photo, "image outside the root" if outside else "missing image")
    else:
        photo.written["file_name"] = draw.choice((GONE, None, 5, "", " ", ["a.png"]))
        lost(photo, "missing image")
    return True


def other_size(facts: Facts, draw: random.Random) -> bool:
    """A size that is not the image's."""
    found = facts.claim_photo(draw) if "sizes" not in facts.style else None
    if found is None:
        return False
    facts.style["sizes"] = ({},)
    found[1].written["width"] = found[1].size[0] + draw.choice((1, 8, 100))
    lost(found[1], "image size differs from annotation")
    return True


def image_twice(facts: Facts, draw: random.Random) -> bool:
    """A row of an image that stands twice, or once more under another id, to which no box refers."""
    found = facts.claim_photo(draw)
    if found is None:
        return False
    found[1].written[draw.choice(("copies", "again"))] = 1
    return True


def id_of_two(facts: Facts, draw: random.Random) -> bool:
    """Two images of one id: nobody can tell whose the boxes are."""
    for photos in facts.splits.values():
        free = [p for p in photos if not p.claimed and not p.fate and not any(t.claimed for t in p.things)]
        if len(free) > 1:
            for photo in free[:2]:
                photo.written["id"] = free[0].written["id"]
                photo.claimed = True
                photo.also = [rule for rule in photo.also if rule != "image at another path"]
                lost(photo, "image id of two files")
            return True
    return False


REDUCING: list[Mutation] = [no_number, no_class, no_image, unclear, image_gone, other_size, image_twice, id_of_two]
