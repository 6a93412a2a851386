"""Facts as VOC folders, in the many ways in which tools write them."""

from __future__ import annotations

import random
import re
from typing import Any
from xml.sax.saxutils import escape

from tests.data.mutated.facts import GONE, SPLITS, Facts, Photo, Thing, encoded

LAYOUTS = {  # annotation and image, by the name of the split
    "lists": ("Annotations/", "JPEGImages/"),
    "other names": ("xmls/", "imgs/"),
    "given": ("my notes/", "my photos/"),
    "roboflow": ("{}/", "{}/"),
    "folders": ("annotations/{}/", "images/{}/"),
    "no lists": ("Annotations/", "JPEGImages/"),
    "beside": ("", ""),
}
LISTED = ("lists", "other names", "given")
FLAGS = {False: ("0", " 0 ", "False", "no", "", "Unspecified", GONE), True: ("1", " 1\n", "True", "yes", "1.0", "y")}
TAGS = (
    "filename|size|width|height|depth|folder|source|database|object|name|difficult|bndbox|pose|truncated|part|[xy]m.."
)
KEYS = ("xmin", "ymin", "xmax", "ymax")


def lay_out(facts: Facts, draw: random.Random) -> None:
    """Choose names of files and options."""
    alone = set(facts.splits) == {"train"}
    facts.layout = draw.choice([k for k in LAYOUTS if alone or k not in ("no lists", "beside")])
    for split, photo in facts.photos():
        word = "valid" if split == "val" and facts.layout == "roboflow" else split
        photo.file = LAYOUTS[facts.layout][1].format(word) + photo.stem + photo.suffix
        photo.written["xml"] = LAYOUTS[facts.layout][0].format(word) + photo.stem + ".xml"
    if facts.layout == "given":
        facts.options["sets"] = {s: f"my {s}" if s in facts.splits else None for s in SPLITS}
        facts.options |= {"annotations": "my notes", "images": "my photos"}


def classes(facts: Facts) -> list[str]:
    """Class names in label order: sorted, of all annotations that can be read."""
    given = facts.options.get("names")
    if given is not None:
        return list(given)
    return sorted({t.name for _, p in facts.photos() if _parsed(p) for t in p.things if "name" not in t.written})


def _parsed(photo: Photo) -> bool:
    return photo.fate not in ("missing annotation", "broken annotation")


def write(facts: Facts, draw: random.Random) -> dict[str, bytes]:
    """The files."""
    files: dict[str, bytes] = {}
    for split, photo in facts.photos():
        if photo.there:
            files[photo.file] = photo.image()
        name = photo.written["xml"]
        if facts.style.get("XML"):
            name = name[:-4] + ".XML"
        text = _xml(facts, photo, draw)
        content = photo.written["text"](text) if "text" in photo.written else _encoded(text, facts, split)
        if content is not None:
            files[name] = content
        _count_corners(facts, photo)
    if facts.layout in LISTED:
        for split, photos in facts.splits.items():
            name = f"my {split}" if facts.layout == "given" else split
            files[f"ImageSets/Main/{name}.txt"] = encoded(_list(facts, photos, draw), facts, split)
    if not classes(facts) and facts.refused is None:
        facts.refused = "^No object is annotated in"
    return files


def _encoded(text: str, facts: Facts, split: str) -> bytes:
    encoding, declared = facts.style.get("encoding", "utf-8"), re.search(r'encoding="(ISO-8859-1|windows-1252)"', text)
    if declared and encoding == "utf-8":
        try:
            return text.encode(declared[1])
        except UnicodeError:
            text = text.replace(declared[1], "utf-8")
    return encoded(text.replace(' encoding="ISO-8859-1"', ""), facts, split)


def _count_corners(facts: Facts, photo: Photo) -> None:
    """Boxes that begin before pixel 1 are counted once for each image that is looked at."""
    read = [t for t in photo.things if t.fate not in ("malformed box", "unknown class")]
    if facts.options.get("one_based", True) and _parsed(photo) and any(min(t.box[:2]) < 0 for t in read):
        photo.also.append("corner at 0")


def _list(facts: Facts, photos: list[Photo], draw: random.Random) -> str:
    way = facts.style.get("list", "{stem}")
    lines = []
    for photo in photos:
        stem = photo.written["xml"].removesuffix(".xml").removeprefix(LAYOUTS[facts.layout][0])
        line = way.format(stem=stem, file=stem + photo.suffix, flag=draw.choice(("-1", " 0", " 1", "1")))
        lines += [line] * (1 + photo.written.get("copies", 0))
    lines += facts.style.get("lines", {}).get(id(photos), [])
    blank = facts.style.get("blank", "\n")
    return blank.join(lines) + draw.choice(("", "\n"))


def _xml(facts: Facts, photo: Photo, draw: random.Random) -> str:
    width, height = draw.choice(facts.style.get("size") or (photo.size,))
    if "width" in photo.written:
        width = photo.written["width"]
    named = draw.choice(facts.style.get("filename", ("{stem}{suffix}",))).format(
        stem=photo.stem, suffix=photo.suffix, other=draw.choice([p.stem + p.suffix for _, p in facts.photos()])
    )
    size = [_tag("width", width), _tag("height", height), "<depth>3</depth>"]
    parts = [
        _tag("filename", named if named else GONE),
        f"<size>{_joined(size, facts, draw)}</size>" if width is not GONE else "",
        *(_object(facts, t, draw) for t in photo.things),
        *(("<folder>x</folder>", "<source><database>?</database></source>") if facts.style.get("extra") else ()),
    ]
    head = facts.style.get("head", "")
    space = facts.style.get("space", ("<annotation", ""))
    text = f"{head}{space[0]}{space[1]}>{_joined(parts, facts, draw)}</{space[0][1:].split()[0]}>"
    if space[0] != "<annotation":  # a prefix stands before every tag
        text = re.sub(rf"(</?)(?=({TAGS})>)", r"\1v:", text)
    tail = facts.style.get("tail", "")
    return text + (tail if facts.style.get("encoding") not in ("utf-16-le", "utf-16-be") else tail.strip("\0"))


def _object(facts: Facts, thing: Thing, draw: random.Random) -> str:
    shift = 1 if facts.options.get("one_based", True) else 0
    x1, y1, x2, y2 = thing.box
    corners = dict(zip(KEYS, (_figure(v, facts, draw) for v in (x1 + shift, y1 + shift, x2, y2)), strict=True))
    corners |= {k: v for k, v in thing.written.items() if k in KEYS}
    box = [_tag(k, v) for k, v in corners.items()]
    name = thing.written.get("name", thing.name)
    if name is not GONE and facts.style.get("cdata") and "]]>" not in name:
        named = f"<name><![CDATA[{name}]]></name>"
    else:
        named = _tag("name", name if name is GONE else facts.style.get("name", "{}").format(name))
    flag = draw.choice(FLAGS[thing.difficult]) if facts.style.get("flags") else str(int(thing.difficult))
    parts = [
        named,
        _tag("difficult", thing.written.get("difficult", flag)),
        f"<bndbox>{_joined(box, facts, draw)}</bndbox>" if "bndbox" not in thing.written else "",
        *(("<pose>Left</pose>", "<truncated>1</truncated>") if facts.style.get("extra") else ()),
    ]
    if facts.style.get("parts"):
        inner = "".join(f"<{k}>{v}</{k}>" for k, v in zip(KEYS, (1, 1, 9, 9), strict=True))
        parts.append(f"<part><name>head</name><difficult>1</difficult><bndbox>{inner}</bndbox></part>")
    return f"<object>{_joined(parts, facts, draw)}</object>"


def _tag(name: str, value: Any) -> str:
    return "" if value is GONE else f"<{name}>{escape(str(value))}</{name}>"


def _joined(parts: list[str], facts: Facts, draw: random.Random) -> str:
    found = [p for p in parts if p]
    if facts.style.get("order"):
        objects = iter([p for p in found if p.startswith("<object")])  # their order says nothing either
        draw.shuffle(found)
        found = [next(objects) if p.startswith("<object") else p for p in found]
    return facts.style.get("between", "\n").join(["", *found, ""])


def _figure(value: float, facts: Facts, draw: random.Random) -> str:
    whole = str(int(value)) if float(value).is_integer() else repr(float(value))
    if not facts.style.get("figures"):
        return whole
    return draw.choice((whole, f"{float(value)}", f" {whole}\n", f"{value:.12e}", f"{value:+.6f}", f"{value:.2f}"))
