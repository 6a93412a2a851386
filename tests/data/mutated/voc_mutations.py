"""Mutations of VOC folders."""

from __future__ import annotations

import random

from tests.data.mutated.facts import ENCODINGS, ENDS, GONE, Facts
from tests.data.mutated.shared import Mutation, bare, lost, spoiled, style, windows
from tests.data.mutated.voc import KEYS, LAYOUTS, LISTED

NO_NUMBER = ("x", "nan", "inf", "-inf", "1e999", "", "1,5", "5px", "0x10", "1_0", "\u0663", "1 2", GONE)


def zero_based(facts: Facts, draw: random.Random) -> bool:
    """Corners that count from 0, with data.one_based=false."""
    facts.options["one_based"] = False
    return True


def names_given(facts: Facts, draw: random.Random) -> bool:
    """data.names in another order."""
    facts.options["names"] = draw.sample(facts.names, len(facts.names))
    return True


def raw_size(facts: Facts, draw: random.Random) -> bool:
    """An image with an EXIF orientation whose boxes were drawn on the pixels as stored."""
    for _, photo in facts.photos():
        if photo.orientation >= 5 and photo.size[0] != photo.size[1] and "size" not in facts.style:
            facts.style["size"] = None  # as it is
            photo.raw = True
            return True
    return False


def lists(facts: Facts, draw: random.Random) -> bool:
    """Lists with extensions, folders, a column of flags."""
    if facts.layout not in LISTED:
        return False
    images, xmls = LAYOUTS[facts.layout][1], LAYOUTS[facts.layout][0]
    ways = ["{file}", "{stem}.xml", "{stem} {flag}", "{stem}\t{flag}", "./{stem}", ".\\{file}", images + "{file}"]
    ways += ["  {stem}  "]
    if "filename" not in facts.style:  # without it, the image is found by the end of its path
        facts.style["filename"] = ("{stem}{suffix}",)
        ways += ["/home/me/VOC/" + images + "{file}", "C:\\VOC\\{stem}.xml", xmls + "{stem}.xml"]
    if not any(" " in p.stem for _, p in facts.photos()) and " " not in images:
        ways.append("./" + images + "{file} ./" + xmls + "{stem}.xml")
    facts.style["list"] = draw.choice(ways)
    return True


HARMLESS: list[Mutation] = [
    style("figures", True),
    style("order", True),
    style("between", "", "\n\t", "\n<!-- <object> -->\n", "<?note x?>", "\r\n"),
    style("flags", True),
    style("extra", True),
    style("parts", True),
    style("cdata", True),
    style("name", " {} ", "\n\t{}\n"),
    style("end", *ENDS),
    style("encoding", *ENCODINGS),
    style("XML", True),
    style("blank", "\n\n", "\n  \n", " \n"),
    style("tail", "\n\n", "\0\n", "<!-- end -->"),
    style("head", '<?xml version="1.0"?>', '\n <?xml version="1.0" encoding="utf-8"?>\n', "<!-- made by x -->"),
    style("head", '<?xml version="1.0" encoding="ISO-8859-1"?>', '<?xml version="1.0" encoding="windows-1252"?>'),
    style("space", ("<annotation", ' xmlns="http://x.org/voc"'), ("<annotation", ' verified="yes"')),
    style("space", ("<annotation", ' xmlns:xsi="http://x.org"'), ("<v:annotation", ' xmlns:v="http://x.org/voc"')),
    style(
        "filename",
        ("",),
        ("{stem}",),
        ("{other}",),
        ("{stem}.tif",),
        ("photos/{stem}{suffix}", "C:\\x\\{stem}{suffix}"),
    ),
    style("size", (("0", "0"),), ((GONE, GONE),), (("", ""), ("?", "?")), (("0", "0"), (GONE, GONE))),
    bare,
    windows,
    zero_based,
    names_given,
    raw_size,
    lists,
]


def no_number(facts: Facts, draw: random.Random) -> bool:
    """A corner that is no number, or no box at all."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    spoiled(
        found[1],
        "malformed box",
        **({draw.choice(KEYS): draw.choice(NO_NUMBER)} if draw.random() < 0.8 else {"bndbox": GONE}),
    )
    return True


def no_class(facts: Facts, draw: random.Random) -> bool:
    """An object without a name, or one that data.names lacks."""
    found = facts.claim_thing(draw)
    if found is None:
        return False
    more = ("unheard of",) if "names" in facts.options else ()
    spoiled(found[1], "unknown class", name=draw.choice((GONE, "", " ", *more)))
    return True


def unclear(facts: Facts, draw: random.Random) -> bool:
    """A flag that says neither yes nor no."""
    found = facts.claim_thing(draw)
    if found is not None:
        found[1].also.append("unclear flag")
        found[1].difficult = False
        found[1].written["difficult"] = draw.choice(("perhaps", "?", "0 1"))
    return found is not None


def image_gone(facts: Facts, draw: random.Random) -> bool:
    """An image without a file."""
    found = facts.claim_photo(draw) if "filename" not in facts.style else None
    if found is None:
        return False
    facts.style["filename"] = ("{stem}{suffix}",)
    found[1].there = False
    facts.folders.append(found[1].file.removesuffix(found[1].stem + found[1].suffix) or ".")
    lost(found[1], "missing image")
    return True


def xml_gone(facts: Facts, draw: random.Random) -> bool:
    """An image without an annotation."""
    found = facts.claim_photo(draw, least=2)
    if found is None:
        return False
    found[1].written["text"] = lambda text: None
    lost(found[1], "missing annotation")
    return True


def xml_broken(facts: Facts, draw: random.Random) -> bool:
    """An annotation that cannot be parsed."""
    found = facts.claim_photo(draw, least=2)
    if found is None:
        return False
    change = draw.choice(
        (
            lambda text: b"",
            lambda text: text.rstrip("\0 \n\r")[:-14].encode(),
            lambda text: b"<html><body/></html>",
            lambda text: b"\0\1\2 no xml",
            lambda text: text.replace("<filename", "<file name").encode() + b"<",
            lambda text: b"<annotation>&undefined;</annotation>",
        )
    )
    found[1].written["text"] = change
    lost(found[1], "broken annotation")
    return True


def other_size(facts: Facts, draw: random.Random) -> bool:
    """A size that is not the image's."""
    found = facts.claim_photo(draw) if facts.style.get("size") is None else None
    if found is None:
        return False
    found[1].written["width"] = found[1].size[0] + draw.choice((1, 8, 100))
    lost(found[1], "image size differs from annotation")
    return True


def listed_twice(facts: Facts, draw: random.Random) -> bool:
    """A line of a list that repeats."""
    found = facts.claim_photo(draw) if facts.layout in LISTED else None
    if found is not None:
        found[1].written["copies"] = 1
        found[1].also.append("image listed twice")
    return found is not None


def listed_for_nothing(facts: Facts, draw: random.Random) -> bool:
    """A line of a list without files."""
    if facts.layout not in LISTED or "{flag}" in facts.style.get("list", ""):
        return False
    split = draw.choice(list(facts.splits))
    line, rule = draw.choice((("gone", "missing annotation"), ("../../gone/x", "image outside the root")))
    facts.style["lines"] = {id(facts.splits[split]): [line]}
    facts.findings[split, rule] += 1
    return True


REDUCING: list[Mutation] = [
    *(no_number, no_class, unclear, image_gone, xml_gone, xml_broken, other_size, listed_twice, listed_for_nothing)
]
