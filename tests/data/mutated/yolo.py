"""Facts as YOLO data sets, in the many ways in which tools write them."""

from __future__ import annotations

import json
import random
import re

from tests.data.mutated.facts import Corners, Facts, Photo, Thing, encoded

LAYOUTS = {  # image and label file, by the name of the split
    "ultralytics": ("images/{}/", "labels/{}/"),
    "roboflow": ("{}/images/", "{}/labels/"),
    "parent": ("{}/images/", "{}/labels/"),  # entries ../train/images
    "beside": ("{}/", "{}/"),
    "lists": ("images/", "labels/"),
    "lists of folders": ("images/{}/", "labels/{}/"),
    "classes.txt": ("images/{}/", "labels/{}/"),
    "obj.names": ("obj_train_data/", "obj_train_data/"),
    "given": ("my images/{}/", "my labels/{}/"),
}
LISTS = ("lists", "lists of folders", "obj.names")
WITHOUT_YAML = ("classes.txt", "obj.names")
PLAIN = re.compile(r"[A-Za-z0-9_<\u0080-\U0010ffff][\w .%<>&;+'\"\\\u0080-\U0010ffff-]*")


def lay_out(facts: Facts, draw: random.Random) -> None:
    """Choose names of files and options."""
    facts.layout = draw.choice(tuple(LAYOUTS))
    images, labels = LAYOUTS[facts.layout]
    for split, photo in facts.photos():
        photo.file = images.format(_word(facts, split)) + photo.stem + photo.suffix
        photo.written["label"] = labels.format(_word(facts, split)) + photo.stem + ".txt"
    if facts.layout == "given":
        facts.options["labels"] = "my labels"
    if facts.layout not in WITHOUT_YAML:
        facts.options["root"] = draw.choice(("", "data.yaml"))


def _word(facts: Facts, split: str) -> str:
    return "valid" if split == "val" and facts.layout in ("roboflow", "parent") else split


def classes(facts: Facts) -> list[str]:
    """Class names in label order."""
    return facts.names


def write(facts: Facts, draw: random.Random) -> dict[str, bytes]:
    """The files."""
    files: dict[str, bytes] = {}
    for split, photo in facts.photos():
        if photo.there:
            files[photo.file] = photo.image()
        if photo.written["label"] is not None:
            files[photo.written["label"]] = encoded(_rows(facts, photo, draw), facts, split)
        if not photo.there and facts.layout not in LISTS:
            facts.findings[split, "label without image"] += bool(photo.things)
    for split in facts.splits if facts.layout in LISTS else ():
        files[_list_name(facts, split)] = encoded(_list(facts, split, draw), facts, split)
    if facts.layout in WITHOUT_YAML:
        files[facts.layout] = encoded("\n".join(facts.names) + draw.choice(("", "\n", "\n\n \n")), facts, "train")
    else:
        files["data.yaml"] = encoded(_yaml(facts, draw), facts, "train")
    return files


def _list_name(facts: Facts, split: str) -> str:
    return f"{split}.txt" if facts.layout in WITHOUT_YAML else f"lists/{split} images.txt"


def _list(facts: Facts, split: str, draw: random.Random) -> str:
    lines = []
    for photo in facts.splits[split]:
        line = facts.style.get("path", "{}").format(photo.file)
        lines += [line] * (1 + photo.written.get("copies", 0))
    lines += facts.style.get("lines", {}).get(split, [])
    return facts.style.get("blank", "\n").join(lines) + draw.choice(("", "\n"))


def _rows(facts: Facts, photo: Photo, draw: random.Random) -> str:
    lines = [_row(facts, photo, thing, draw) for thing in photo.things]
    return facts.style.get("blank", "\n").join(lines) + ("\n" if lines and draw.random() < 0.7 else "")


def _row(facts: Facts, photo: Photo, thing: Thing, draw: random.Random) -> str:
    number = facts.names.index(thing.name)
    if "row" in thing.written:
        return thing.written["row"].format(n=number)
    first = str(thing.written.get("class", draw.choice(facts.style.get("class", ("{}",))).format(number)))
    x1, y1, x2, y2 = thing.box
    width, height = photo.size
    shape = draw.choice(facts.style.get("shapes", ("box",)))
    inner = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height and x2 > x1 and y2 > y1
    if shape == "polygon" and inner:
        values = [v / side for x, y in _polygon(thing.box, draw) for v, side in ((x, width), (y, height))]
    else:
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        values += facts.style.get("points", [])
    space = facts.style.get("between", " ")
    return facts.style.get("line", "{}").format(space.join([first, *(_figure(v, facts, draw) for v in values)]))


def _polygon(box: Corners, draw: random.Random) -> list[tuple[float, float]]:
    """Corners of a polygon with this bounding box, in turn."""
    x1, y1, x2, y2 = box
    a, b, c, d = (draw.choice((0.25, 0.5, 1.0)) for _ in range(4))
    points = [(x1, y1 + a * (y2 - y1)), (x1 + b * (x2 - x1), y1), (x2, y2 - c * (y2 - y1)), (x2 - d * (x2 - x1), y2)]
    return [*points, points[0]] if draw.random() < 0.5 else points


def _figure(value: float, facts: Facts, draw: random.Random) -> str:
    if not facts.style.get("figures"):
        return f"{value:.6f}"
    return draw.choice((repr(float(value)), f"{value:.9e}", f"{value:+.7f}", f"{value:.6f}".replace("0.", ".", 1)))


def _yaml(facts: Facts, draw: random.Random) -> str:
    parts = {split: _entry(facts, split) for split in facts.splits}
    if "val" in parts and facts.style.get("validation"):
        parts[draw.choice(("valid", "validation"))] = parts.pop("val")
    lines = [f"{key}: {value}" for key, value in parts.items()]
    lines += [f"path: {facts.style['root']}"] if facts.style.get("root") and facts.layout != "parent" else []
    lines += [f"nc: {len(facts.names)}"] if facts.style.get("nc") else []
    lines += [facts.style["more"]] if "more" in facts.style else []
    lines += [_names(facts)]
    draw.shuffle(lines)
    return facts.style.get("begin", "") + "\n".join(lines) + "\n"


def _entry(facts: Facts, split: str) -> str:
    folder = LAYOUTS[facts.layout][0].format(_word(facts, split))
    if facts.layout in LISTS:
        return _list_name(facts, split)
    if facts.layout == "parent":
        return f"../{folder}"
    return facts.style.get("entry", "{}").format(folder.rstrip("/"))


def _names(facts: Facts) -> str:
    words = [_scalar(name, facts) for name in facts.names]
    way = facts.style.get("names", "list")
    if way == "file":
        facts.files["my names.txt"] = ("\n".join(facts.names) + "\n\n").encode("utf-8-sig")
        return "names: ./my names.txt"
    if way == "list":
        return f"names: [{', '.join(words)}]"
    if way == "lines":
        return "\n".join(["names:", *(f"- {word}" for word in words)])
    rows = [f"{i}: {word}" for i, word in enumerate(words)]
    if way == "dict":
        return "names: {" + ", ".join(rows) + "}"
    return "\n".join(["names:", *(f"  {row}" for row in (rows if way == "block" else reversed(rows)))])


def _scalar(name: str, facts: Facts) -> str:
    """A name in YAML: plain where it can be, else quoted."""
    if facts.style.get("plain", True) and PLAIN.fullmatch(name):
        return name
    return json.dumps(name, ensure_ascii=False) if "'" in name else f"'{name}'"
