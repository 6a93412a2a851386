"""Facts as tables with a row for each box, in the many ways in which tools write them."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from tests.data.mutated.facts import SPLITS, Facts, Photo, Thing, encoded

LAYOUTS = {  # table and folder of the images, by the name of the split; a table without one holds every split
    "one": ("annotations.csv", "images/"),
    "folders": ("labels.csv", "{}/"),
    "beside": ("_annotations.csv", ""),
    "only": ("my table.csv", "JPEGImages/"),
    "roboflow": ("{}/_annotations.csv", "{}/"),
    "tensorflow": ("{}_labels.csv", "images/{}/"),
    "data": ("data/{}_labels.csv", "images/"),
    "plain": ("{}.csv", "{}/images/"),
    "annotations": ("annotations/{}.csv", "imgs/"),
    "labels": ("images/{}_labels.csv", "images/{}/"),
    "given": ("my tables/{} a.csv", "my pictures/"),
    "given folders": ("tables/{}-b.csv", "my pictures/{}/"),
}
BOXES = {  # titles of the four numbers
    "corners": ("xmin ymin xmax ymax", "x1 y1 x2 y2", "left top right bottom", "x_min y_min x_max y_max"),
    "sides": ("x y w h", "left top width height", "bbox_x bbox_y bbox_width bbox_height", "x y width height"),
    "centres": ("x_center y_center w h", "cx cy w h", "x_center y_center width height"),
}
TITLES = {
    "file": ("filename", "image_path", "path", "file", "image", "image_id", "image_name"),
    "class": ("class", "label", "class_name", "label_name", "category", "name"),
    "split": ("split", "set"),
    "crowd": ("is_crowd", "IsGroupOf", "iscrowd"),
    "difficult": ("difficult",),
}
WORDS = {"train": ("train", "TRAIN", "Train"), "val": ("val", "valid", "validation"), "test": ("test", "Test")}
FLAGS = {False: ("0", "", "False", "no", "0.0"), True: ("1", "True", "true", "yes", "1.0")}
AUTOML = ("split", "file", "class", "x1", "y1", "", "", "x2", "y2", "", "")
RETINANET = ("file", "x1", "y1", "x2", "y2", "class")
OPEN_IMAGES = ("file", "Source", "class", "Confidence", "x1", "x2", "y1", "y2", "IsOccluded", "crowd")
NUMBERS = ("x1", "y1", "x2", "y2")  # the four of a box, whatever they are


class Line(NamedTuple):
    """A row: a box, or an image without any."""

    split: str
    photo: Photo
    thing: Thing | None


def lay_out(facts: Facts, draw: random.Random) -> None:
    """Choose names of files and options."""
    facts.layout = draw.choice(tuple(LAYOUTS))
    facts.style["word"] = draw.choice(("val", "valid", "validation"))
    for split, photo in facts.photos():
        photo.file = folder_of(facts, split) + photo.stem + photo.suffix
    if facts.layout.startswith("given"):
        tables = {s: table_of(facts, s) if s in facts.splits else None for s in SPLITS}
        facts.options |= {"annotations": tables, "images": "my pictures"}
    if facts.layout == "only":
        facts.options["root"] = draw.choice(("", "my table.csv"))


def table_of(facts: Facts, split: str) -> str:
    """The table of a split."""
    return LAYOUTS[facts.layout][0].format(_word(facts, split))


def folder_of(facts: Facts, split: str) -> str:
    """The folder of a split's images, with a slash at its end."""
    return LAYOUTS[facts.layout][1].format(_word(facts, split))


def _word(facts: Facts, split: str) -> str:
    return facts.style["word"] if split == "val" else split


def divided(facts: Facts) -> bool:
    """Whether a column must say which split a row belongs to."""
    return "{}" not in LAYOUTS[facts.layout][0] and len(facts.splits) > 1


def classes(facts: Facts) -> list[str]:
    """Class names in label order: those given, or those of all rows with numbers, sorted; numbers by their value."""
    if "names" in facts.options:
        return list(facts.options["names"])
    found = {t.name for _, p in facts.photos() if _listed(p) for t in p.things if not {"class", "gap"} & set(t.written)}
    if all(re.fullmatch(r"[+-]?\d+(e\d+)?", name) for name in found):
        return sorted(found, key=lambda name: (float(name), name))
    return sorted(found)


def _listed(photo: Photo) -> bool:
    return not photo.written.get("unlisted", False)


def write(facts: Facts, draw: random.Random) -> dict[str, bytes]:
    """The files."""
    files = {photo.file: photo.image() for _, photo in facts.photos() if photo.there}
    tables: dict[str, list[Line]] = {}
    for split, photo in facts.photos():
        things: list[Thing | None] = [*photo.things]
        spoiled = {"gap", "file"} | (set(NUMBERS) if facts.style.get("header") == "retinanet" else set())
        if all(spoiled & set(t.written) for t in photo.things):  # no row says where the image belongs
            things.append(None)
        lines = tables.setdefault(table_of(facts, split), [])
        lines += [Line(split, photo, thing) for thing in things if _listed(photo)]
    for name, lines in tables.items():
        own = "train" if "{}" not in LAYOUTS[facts.layout][0] else lines[0].split
        files[name] = encoded(_table(facts, lines, draw), facts, own)
    if not classes(facts):
        facts.refused = "has no row with a box and a class" + (f"|{facts.refused}" if facts.refused else "")
    return files


def _table(facts: Facts, lines: list[Line], draw: random.Random) -> str:
    style = facts.style
    keys = _columns(facts, draw)
    if style.get("shuffled"):
        draw.shuffle(lines)
    lines.sort(key=lambda line: bool(line.thing and line.thing.written))  # the first row may tell what the columns are
    shares = _are_shares(facts, lines)
    rows = [_cells(facts, line, keys, shares, draw) for line in lines]
    tail = [""] if style.get("tail") else []
    rows = [[*([str(i)] if style.get("index") else []), *row, *tail] for i, row in enumerate(rows)]
    rows += [[""] * len(rows[0])] * style.get("empty rows", 0)
    if style.get("header") not in ("retinanet", "automl"):
        titles = [*([""] if style.get("index") else []), *_titles(facts, keys, draw)]
        rows.insert(0, titles)
        if style.get("titles again"):
            rows.insert(draw.randint(1, len(rows)), titles)
    text = [separator(facts).join(_quoted(cell, facts) for cell in row) for row in rows]
    return style.get("blank", "\n").join(text) + ("\n" if draw.random() < 0.8 else "")


def separator(facts: Facts) -> str:
    """What stands between cells."""
    return facts.style.get("separator", ",")


def _columns(facts: Facts, draw: random.Random) -> list[str]:
    """The columns in their order; those with another name than the format's hold notes."""
    style = facts.style
    if fixed := style.get("fixed"):
        return [*fixed, *(["split"] if divided(facts) and "split" not in fixed else [])]
    keys = ["file", "class", *NUMBERS]
    keys += ["split"] if divided(facts) else []
    keys += ["crowd"] if style.get("flags") or any(t.crowd for _, p in facts.photos() for t in p.things) else []
    keys += ["difficult"] if style.get("flags") or any(t.difficult for _, p in facts.photos() for t in p.things) else []
    keys += ["width", "height"] if style.get("sizes") else []
    keys += style.get("more") or ()
    if style.get("columns"):
        draw.shuffle(keys)
    return keys


def form(facts: Facts) -> str:
    """What the four numbers are: corners, sides or centres."""
    return facts.style.get("form", "corners")


def _titles(facts: Facts, keys: list[str], draw: random.Random) -> list[str]:
    other = facts.style.get("titles", False)
    box = draw.choice(BOXES[form(facts)]) if other else BOXES[form(facts)][0]
    named = dict(zip(NUMBERS, box.split(), strict=True))
    sides = ("image_width", "image_height") if "width" in box.split() else ("width", "height")
    named |= dict(zip(("width", "height"), sides, strict=True))
    named |= {key: draw.choice(titles) if other else titles[0] for key, titles in TITLES.items()}
    if facts.style.get("header") == "open images":
        named |= {"file": "ImageID", "class": "LabelName", "crowd": "IsGroupOf"}
        named |= dict(zip(NUMBERS, ("XMin", "YMin", "XMax", "YMax"), strict=True))
    return [draw.choice(facts.style.get("spelling", (str,)))(named.get(key, key)) for key in keys]


def _cells(facts: Facts, line: Line, keys: list[str], shares: bool, draw: random.Random) -> list[str]:
    split, photo, thing = line
    style = facts.style
    row = {"file": name_of(facts, split, photo), "split": draw.choice(WORDS[split] if style.get("words") else (split,))}
    if style.get("header") == "automl":
        row["split"] = {"train": "TRAIN", "val": "VALIDATE", "test": "TEST"}[split]
    row |= {key: str(v) for key, v in zip(("width", "height"), photo.size, strict=True)}
    row |= {key: str(photo.written[key]) for key in ("width", "height") if key in photo.written}
    empty = style.get("nothing", "")
    if thing is None:
        row |= {"class": empty} | dict.fromkeys(NUMBERS, empty)
    else:
        numbers = _numbers(facts, photo, thing, shares)
        row |= {key: _figure(v, facts, shares, draw) for key, v in zip(NUMBERS, numbers, strict=True)}
        row |= {"class": thing.name, "crowd": _flag(thing.crowd, facts, draw)}
        row |= {"difficult": _flag(thing.difficult, facts, draw)}
        row |= {key: str(value) for key, value in thing.written.items() if key in keys}
    cells = [row.get(key, "") if key in row or key not in NOTES else draw.choice(NOTES[key]) for key in keys]
    if thing is not None and "gap" in thing.written:
        cells.insert(keys.index("x1"), "5")
    return cells


NOTES = {
    "Source": ("xclick", "activemil"),
    "Confidence": ("1", "0.5"),
    "IsOccluded": ("0", "-1"),
    "note": ("", "two\nlines", 'a "word"', "a, b; c\td|e", "it's"),
    "area": ("9", "12.5"),
    "class_id": ("0", "7"),
    "confidence": ("0.9", "1"),
}


def _flag(value: bool, facts: Facts, draw: random.Random) -> str:
    return draw.choice(FLAGS[value]) if facts.style.get("flags") else str(int(value))


def name_of(facts: Facts, split: str, photo: Photo) -> str:
    """An image's name as the table has it."""
    name = photo.stem + ("" if facts.style.get("bare names") else photo.suffix)
    below = folder_of(facts, split) + name
    up = "../" * table_of(facts, split).count("/")
    return facts.style.get("path", "{name}").format(
        name=name, file=below, back=below.replace("/", "\\"), beside=up + below
    )


def _numbers(facts: Facts, photo: Photo, thing: Thing, shares: bool) -> list[float]:
    """The four numbers of a box."""
    x1, y1, x2, y2 = thing.box
    kind = form(facts)
    first = 1 if facts.options.get("one_based") and not shares else 0
    if kind == "corners":
        numbers = [x1 + first, y1 + first, x2, y2]
    elif kind == "sides":
        numbers = [x1 + first, y1 + first, x2 - x1, y2 - y1]
    else:
        numbers = [(x1 + x2) / 2 + first, (y1 + y2) / 2 + first, x2 - x1, y2 - y1]
    return [v / side for v, side in zip(numbers, photo.size * 2, strict=True)] if shares else numbers


def _are_shares(facts: Facts, lines: list[Line]) -> bool:
    """Whether the table has shares of the images: as asked, if most boxes lie within, and some not at the borders."""
    if not facts.style.get("shares") or form(facts) == "sides":
        return False
    boxes = [_numbers(facts, line.photo, line.thing, True) for line in lines if line.thing is not None]
    good = [box for box, line in zip(boxes, (x for x in lines if x.thing), strict=True) if not _spoiled(line)]
    within = [box for box in good if max(box) <= 1]
    return 2 * len(within) > len(boxes) and any(0 < v < 1 for box in within for v in box)


def _spoiled(line: Line) -> bool:
    return line.thing is not None and bool(line.thing.written)


def _figure(value: float, facts: Facts, shares: bool, draw: random.Random) -> str:
    if not facts.style.get("figures"):
        text = str(int(value)) if float(value).is_integer() and not shares else repr(round(float(value), 8))
    else:
        text = draw.choice((repr(float(value)), f"{value:.12e}", f"{value:+.7f}", f"{value:.8f}"))
    return text.replace(".", ",") if facts.style.get("comma") and separator(facts) != "," else text


def _quoted(cell: str, facts: Facts) -> str:
    way = facts.style.get("quotes", "needed")
    needed = separator(facts) in cell or "\n" in cell or cell.startswith('"') or cell != cell.strip()
    if way == "all" or needed or (way == "needed" and '"' in cell) or (way == "words" and not _is_number(cell)):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+\d.,e]*", cell) is not None
