"""Mutations of tables with a row for each box."""

from __future__ import annotations

import random

from tests.data.mutated.csv_tables import AUTOML, NUMBERS, OPEN_IMAGES, RETINANET, divided, folder_of, separator
from tests.data.mutated.facts import ENCODINGS, ENDS, Facts, Photo
from tests.data.mutated.oracle import UNSEEN, WRONG_SIZE
from tests.data.mutated.shared import Mutation, bare, lost, spoiled, style, windows

NO_NUMBER = ("x", "inf", "-inf", "1e999", "1 5", "1_0", "--", "True", "0x1F", "5px", "1.5.2", "nan", "", "?", "[1]")
COLUMNS = ("form", "shares", "columns", "titles", "spelling", "sizes", "flags", "more", "index", "tail")  # of a table
MOVED = (
    *("/home/me/set/{file}", "C:\\set\\{back}", "../../other/{file}", "elsewhere/{name}", "gs://bucket/{file}"),
    *("https://x.org/set/{file}", "file:///set/{file}"),
)


def _fixed(facts: Facts, header: str, columns: tuple[str, ...], **more: object) -> bool:
    """Columns that a tool always writes in this way."""
    flagged = any(t.crowd or t.difficult for _, p in facts.photos() for t in p.things)
    if flagged or any(name in facts.style for name in (*COLUMNS, "header", "titles again", "bare names")):
        return False
    facts.style |= dict.fromkeys(("columns", "titles", "sizes", "flags", "more", "index", "tail"))
    facts.style |= {"form": "corners", "header": header, "fixed": columns, "spelling": (str,), "shares": False, **more}
    return True


def retinanet(facts: Facts, draw: random.Random) -> bool:
    """keras-retinanet's tables, which have no titles."""
    return not divided(facts) and _fixed(facts, "retinanet", RETINANET, **{"titles again": None})


def automl(facts: Facts, draw: random.Random) -> bool:
    """Google AutoML's tables, which have none either."""
    return _fixed(facts, "automl", AUTOML, shares=True, **{"titles again": None})


def open_images(facts: Facts, draw: random.Random) -> bool:
    """Open Images' tables: shares, and names of images without an extension."""
    return _fixed(facts, "open images", OPEN_IMAGES, shares=True, **{"bare names": True})


def comma(facts: Facts, draw: random.Random) -> bool:
    """12,5 for 12.5, beside other separators."""
    if "separator" in facts.style:
        return False
    facts.style |= {"separator": draw.choice((";", ";", "\t", "|")), "comma": True}
    return True


def one_based(facts: Facts, draw: random.Random) -> bool:
    """Corners that count from 1."""
    facts.options["one_based"] = True
    return True


def names_given(facts: Facts, draw: random.Random) -> bool:
    """data.names, in another order, with a class that no row has."""
    facts.options["names"] = draw.sample([*facts.names, "unseen"], len(facts.names) + 1)
    return True


def crowd(facts: Facts, draw: random.Random) -> bool:
    """A crowd, in a column of its own."""
    return _flagged(facts, draw, "crowd")


def difficult(facts: Facts, draw: random.Random) -> bool:
    """An object that is difficult."""
    return _flagged(facts, draw, "difficult")


def _flagged(facts: Facts, draw: random.Random, flag: str) -> bool:
    found = facts.claim_thing(draw) if "fixed" not in facts.style else None
    if found is not None:
        setattr(found[1], flag, True)
    return found is not None


def raw_size(facts: Facts, draw: random.Random) -> bool:
    """An image with an EXIF orientation whose boxes were drawn on the pixels as stored, as the size columns show."""
    for _, photo in facts.photos():
        if photo.orientation >= 5 and photo.size[0] != photo.size[1] and "sizes" not in facts.style:
            facts.style["sizes"] = True
            photo.raw = True
            return True
    return False


def moved(facts: Facts, draw: random.Random) -> bool:
    """Names of images with the paths of another machine."""
    if "path" in facts.style:
        return False
    facts.style["path"] = draw.choice(MOVED)
    for _, photo in facts.photos():
        photo.also.append("image at another path")
    return True


def companions(facts: Facts, draw: random.Random) -> bool:
    """Files that usually lie beside images."""
    for split, _ in facts.photos():
        for name in (".DS_Store", "Thumbs.db", "README.txt", "README.roboflow.txt"):
            facts.files[folder_of(facts, split) + name] = b"A note.\n"
    return True


def unlisted_empty(facts: Facts, draw: random.Random) -> bool:
    """Images without boxes that no row names, and data.unlisted=empty."""
    photo = _without_row(facts, draw)
    if photo is not None:
        facts.options["unlisted"] = "empty"
        photo.also.append("unlisted image")
    return photo is not None


def _without_row(facts: Facts, draw: random.Random) -> Photo | None:
    """A photo that loses its boxes and rows. Another one of its split lies beside it, and none of a split but train."""
    found = facts.claim_photo(draw, least=2)
    if found is None or "unlisted" in facts.options:
        return None
    split, photo = found
    beside = [(s, p) for s, p in facts.photos() if _folder(p) == _folder(photo) and not p.written.get("unlisted")]
    others = [p for s, p in beside if s == split and p is not photo and not p.claimed]
    if not others or (split != "train" and {s for s, _ in beside} != {split}):
        return None
    others[0].claimed = True
    photo.things.clear()
    photo.written["unlisted"] = True
    photo.also = [rule for rule in photo.also if rule != "image at another path"]
    return photo


def _folder(photo: Photo) -> str:
    return photo.file.rpartition("/")[0]


HARMLESS: list[Mutation] = [
    style("separator", ";", "\t", "|"),
    style("quotes", "all", "words", "least"),
    style("form", "sides", "centres"),
    style("shares", True),
    style("columns", True),
    style("titles", True),
    style("spelling", (str.upper,), (str.title, str), (lambda t: t.replace("_", " "),), (lambda t: f" {t} ",)),
    style("sizes", True),
    style("flags", True),
    style("more", ("note",), ("area", "confidence"), ("note", "class_id")),
    style("index", True),
    style("tail", True),
    style("words", True),
    style("nothing", "NaN", "null", "None", "NA", " "),
    style("shuffled", True),
    style("figures", True),
    style("titles again", True),
    style("empty rows", 1, 3),
    style("blank", "\n\n", "\n  \n"),
    style("bare names", True),
    style("path", "{file}", "./{name}", ".\\{name}", "{back}", " {name} ", "./{file}", "{beside}"),
    style("end", *ENDS),
    style("encoding", *ENCODINGS),
    *(bare, windows, retinanet, automl, open_images, comma, one_based, names_given, crowd, difficult, raw_size, moved),
    *(companions, unlisted_empty),
]


def no_number(facts: Facts, draw: random.Random) -> bool:
    """A number that is none."""
    found = facts.claim_thing(draw)
    if found is not None:
        value = draw.choice((*NO_NUMBER, *(["1,5"] if separator(facts) == "," else [])))
        spoiled(found[1], "malformed box", **{draw.choice(NUMBERS): value})
    return found is not None


def one_cell_too_many(facts: Facts, draw: random.Random) -> bool:
    """A row that goes on beyond the titles, behind which every number has another place."""
    blank = any(facts.style.get(name) for name in ("columns", "flags")) or facts.style.get("more") == ("note",)
    found = facts.claim_thing(draw) if not blank else None
    if found is not None:
        for name in ("columns", "flags", "more"):
            facts.style.setdefault(name, None)
        spoiled(found[1], "malformed box", gap=True)
    return found is not None


def no_class(facts: Facts, draw: random.Random) -> bool:
    """A box without a class, or with one that data.names lacks."""
    found = facts.claim_thing(draw)
    if found is not None:
        spoiled(
            found[1], "unknown class", **{"class": draw.choice(("", "zebra") if "names" in facts.options else ("",))}
        )
    return found is not None


def no_file(facts: Facts, draw: random.Random) -> bool:
    """A box without an image."""
    found = facts.claim_thing(draw)
    if found is not None:
        spoiled(found[1], "annotation without image", file="")
    return found is not None


def unclear(facts: Facts, draw: random.Random) -> bool:
    """A flag that says neither yes nor no."""
    found = facts.claim_thing(draw) if facts.style.get("flags") else None
    if found is not None:
        found[1].written[draw.choice(("crowd", "difficult"))] = draw.choice(("-1", "maybe", "2x"))
        found[1].also.append("unclear flag")
    return found is not None


def image_gone(facts: Facts, draw: random.Random) -> bool:
    """Rows of an image without a file."""
    found = facts.claim_photo(draw, least=2)
    if found is None:
        return False
    split, photo = found
    last = photo.stem.rpartition("/")[2]
    alike = [(s, p) for s, p in facts.photos() if p.stem.rpartition("/")[2] == last and p is not photo]
    moves = facts.style.get("path", "{name}") in MOVED
    if alike and (moves or {s for s, _ in alike} != {split}):  # the other one is found for it, at "another path"
        return False
    photo.there = False
    facts.folders.append(photo.file.removesuffix(photo.stem + photo.suffix))
    photo.also = [rule for rule in photo.also if rule != "image at another path"]
    leaves = moves and facts.style["path"].startswith(("/", "C", "..", "file"))
    lost(photo, "image outside the root" if leaves else "missing image")
    return True


def other_size(facts: Facts, draw: random.Random) -> bool:
    """A size that is not the image's."""
    if "sizes" in facts.style and not facts.style["sizes"]:
        return False
    found = facts.claim_photo(draw)
    if found is None:
        return False
    facts.style["sizes"] = True
    found[1].written["width"] = found[1].size[0] + draw.choice((1, 8, 100))
    lost(found[1], WRONG_SIZE)
    return True


def unlisted(facts: Facts, draw: random.Random) -> bool:
    """An image that no row names."""
    found = _without_row(facts, draw)
    if found is None:
        return False
    split = next(s for s, p in facts.photos() if p is found)
    found.fate = UNSEEN
    facts.findings[split, "image without a row"] += 1
    return True


REDUCING: list[Mutation] = [
    *(no_number, one_cell_too_many, no_class, no_file, unclear, image_gone, other_size, unlisted)
]
