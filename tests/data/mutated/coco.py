"""Facts as COCO files, in the many ways in which tools write them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

from tests.data.mutated.facts import GONE, SPLITS, Facts, Photo, Thing, encoded

LAYOUTS = {  # json file and folder of the images, by the name of the split
    "flat": ("{}.json", "images/"),
    "2017": ("annotations/instances_{}2017.json", "{}2017/"),
    "roboflow": ("{}/_annotations.coco.json", "{}/"),
    "folders": ("annotations/{}.json", "images/{}/"),
    "cvat": ("annotations/instances_{}_default.json", "{}/images/"),
    "given": ("my files/{} a.json", "pictures of {}/"),
    "one folder": ("{}-labels.json", "data set/"),
}
FLAGS = {False: (0, 0.0, "0", False, "false", "no", None, "", GONE), True: (1, 1.0, "1", True, "true", "yes")}


def lay_out(facts: Facts, draw: random.Random) -> None:
    """Choose names of files and options."""
    facts.layout = draw.choice(tuple(LAYOUTS))
    for split, photo in facts.photos():
        photo.file = LAYOUTS[facts.layout][1].format(_word(facts, split)) + photo.stem + photo.suffix
    if facts.layout in ("given", "one folder"):
        files = {s: json_of(facts, s) if s in facts.splits else None for s in SPLITS}
        facts.options["annotations"] = files
    if facts.layout == "given":
        facts.options["images"] = {s: f"pictures of {s}" if s in facts.splits else None for s in SPLITS}
    if facts.layout == "one folder":
        facts.options["images"] = draw.choice(("data set", dict.fromkeys(SPLITS)))
    _number(facts, draw)


def _word(facts: Facts, split: str) -> str:
    return "valid" if split == "val" and facts.layout == "roboflow" else split


def json_of(facts: Facts, split: str) -> str:
    """The file of a split."""
    return LAYOUTS[facts.layout][0].format(_word(facts, split))


def _number(facts: Facts, draw: random.Random) -> None:
    """Ids of images and categories."""
    start = draw.choice((0, 1, 1, 100, 2**40))
    for i, (_, photo) in enumerate(facts.photos()):
        photo.written["id"] = start + i
    ids = list(range(len(facts.names)))
    facts.style["categories"] = {s: {n: i + 1 for n, i in zip(facts.names, ids, strict=True)} for s in facts.splits}


def classes(facts: Facts) -> list[str]:
    """Class names in label order: by the ids of the first file, then those that only later ones have."""
    order: list[str] = []
    for split in facts.splits:
        ids = facts.style["categories"][split]
        key = {n: (isinstance(_plain(i), str), _plain(i)) for n, i in ids.items()}
        order += [n for n in sorted(ids, key=lambda n: key[n]) if n not in order]
    return order


def _plain(value: Any) -> Any:
    """An id as its number, if it is one."""
    return int(value) if isinstance(value, float) or (isinstance(value, str) and value.isdigit()) else value


def write(facts: Facts, draw: random.Random) -> dict[str, bytes]:
    """The files."""
    files = {photo.file: photo.image() for _, photo in facts.photos() if photo.there}
    for split in facts.splits:
        document = _document(facts, split, draw)
        if split in facts.style.get("edit", {}):
            document = facts.style["edit"][split](document)
        files[json_of(facts, split)] = encoded(_text(document, facts, draw), facts, split)
    _count_copies(facts)
    return files


def _count_copies(facts: Facts) -> None:
    """What is right for images whose row stands twice, or once more under another id."""
    for split, photos in facts.splits.items():
        for photo in list(photos):
            moved_too = [rule for rule in photo.also if rule == "image at another path"]
            if photo.written.get("copies"):
                photo.also += ["duplicate image id", *moved_too]
            if photo.written.get("again"):
                photos.append(replace(photo, things=[], also=moved_too))
                facts.findings[split, "image file in two entries"] += 1


def _document(facts: Facts, split: str, draw: random.Random) -> dict[str, Any]:
    style = facts.style
    ids = style["categories"][split]
    images, rows = [], []
    for photo in facts.splits[split]:
        images.append(_image(facts, photo, split, draw))
        for thing in photo.things:
            rows.append(_row(facts, photo, thing, ids, len(rows) + 1, draw))
        images += [images[-1]] * photo.written.get("copies", 0)
        images += [images[-1] | {"id": 10**6 + len(images)}] * photo.written.get("again", 0)
    categories = [{"id": i, "name": n, **_parent(n, style, draw)} for n, i in ids.items()]
    categories += categories[:1] if style.get("category twice") else []
    document = {"images": images, "annotations": rows, "categories": categories} | style.get("extra", {})
    for part in (images, rows, categories) if style.get("shuffled") else ():
        draw.shuffle(part)
    return document


def _parent(name: str, style: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    value = draw.choice(style.get("supercategory", (GONE,)))
    return {} if value is GONE else {"supercategory": name if value == "self" else value}


def _image(facts: Facts, photo: Photo, split: str, draw: random.Random) -> dict[str, Any]:
    folder = LAYOUTS[facts.layout][1].format(_word(facts, split))
    whole = facts.layout == "one folder" and isinstance(facts.options["images"], dict)
    name = photo.file if whole else photo.file.removeprefix(folder)
    name = draw.choice(facts.style.get("path", (str,)))(name)
    row = {
        "id": facts.style.get("id", int)(photo.written["id"]),
        "file_name": name,
        "height": _figure(photo.size[1], facts, draw),
        "width": _figure(photo.size[0], facts, draw),
    }
    row |= draw.choice(facts.style.get("sizes", ({},)))
    return _without({**row, **{k: v for k, v in photo.written.items() if k in (*row, "extra") and k != "id"}})


def _row(
    facts: Facts, photo: Photo, thing: Thing, ids: dict[str, Any], number: int, draw: random.Random
) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    box = [_figure(v, facts, draw) for v in (x1, y1, x2 - x1, y2 - y1)]
    image = facts.style.get("id", int)(photo.written["id"])
    row: dict[str, Any] = {
        "id": facts.style.get("row id", lambda n: n)(number),
        "image_id": facts.style.get("reference", lambda v: v)(image),
        "category_id": ids[thing.name],
        "bbox": box,
        "iscrowd": draw.choice(FLAGS[thing.crowd]) if facts.style.get("flags") else int(thing.crowd),
    }
    if draw.random() < 0.5:
        row["area"] = _figure(max((x2 - x1) * (y2 - y1), 0), facts, draw)
    if facts.style.get("polygons"):
        row["segmentation"] = draw.choice(([[x1, y1, x2, y1, x2, y2]], [], None, {"counts": "abc", "size": [9, 9]}))
    if facts.style.get("attributes"):
        row |= {"attributes": {"occluded": False}, "score": 0.5, "keypoints": [1, 2, 2], "ignore": 0}
    return _without(row | thing.written)


def _figure(value: float, facts: Facts, draw: random.Random) -> Any:
    """A number as the style writes it."""
    whole = int(value) if float(value).is_integer() else float(value)
    style = facts.style.get("figures")
    if style is None:
        return whole
    return draw.choice((whole, float(value), str(whole), f" {float(value)} ", f"{float(value):.12e}"))


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is not GONE}


def _text(document: dict[str, Any], facts: Facts, draw: random.Random) -> str:
    if facts.style.get("order"):
        document = _reordered(document, draw)
    return json.dumps(document, ensure_ascii=facts.style.get("ascii", True), indent=facts.style.get("indent"))


def _reordered(value: Any, draw: random.Random) -> Any:
    if isinstance(value, list):
        return [_reordered(v, draw) for v in value]
    if isinstance(value, dict):
        keys = draw.sample(list(value), len(value))
        return {k: _reordered(value[k], draw) for k in keys}
    return value
