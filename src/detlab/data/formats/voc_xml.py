"""One VOC annotation file: parsed without entities, in any encoding, and read into plain text fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from detlab.data.audit import AuditReport, printable
from detlab.errors import DataError
from detlab.system.reading import ReadError, decode, read_bytes

MAX_XML_BYTES = 10_000_000
CORNERS = ("xmin", "ymin", "xmax", "ymax")
DECLARATION = re.compile(r"<\?xml\b[^>]*\?>")
DECLARED = re.compile(rb"<\?xml\b[^>]*\bencoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")


class ObjectNode(NamedTuple):
    """One <object>, as text."""

    name: str
    corners: tuple[str | None, ...]  # xmin, ymin, xmax, ymax
    difficult: str | None


class Annotation(NamedTuple):
    """One <annotation>, as text."""

    filename: str
    height: str | None
    width: str | None
    objects: list[ObjectNode]


def parse(path: Path, split: str, report: AuditReport) -> ET.Element:
    """The tree of an annotation file.

    Raises:
        ReadError: the file is no regular file, not well formed, larger than MAX_XML_BYTES, or not one annotation.
        DataError: the file declares a DTD.
    """
    try:
        data = read_bytes(path, MAX_XML_BYTES)
    except OSError as error:
        raise ReadError(f"cannot be read ({type(error).__name__})") from error
    declared = DECLARED.search(data[:200])
    text = decode(data, declared[1].decode() if declared else None)
    if text.guessed:
        report.add(split, "text not in UTF-8", path.name)
    if "<!DOCTYPE" in text.content or "<!ENTITY" in text.content:
        raise DataError(
            f"{path} declares a DTD, whose entities could fill the memory; remove the declaration or the file."
        )
    # The text is decoded already; a declaration of another encoding would mislead the parser.
    content = DECLARATION.sub("", text.content.strip("\ufeff\0 \t\r\n"), count=1)
    try:
        tree = ET.fromstring(content)
    except (ET.ParseError, ValueError) as error:
        raise ReadError(f"is not valid XML ({error})" if content.strip() else "is empty") from error
    for node in tree.iter():
        node.tag = node.tag.rpartition("}")[2]  # without its namespace
    if tree.tag != "annotation" and next(_objects(tree), None) is None:
        raise ReadError(f"is no VOC annotation: its root is <{tree.tag[:40]}>")
    if sum(node.tag != "object" and node.find("object") is not None for node in tree.iter()) > 1:
        raise ReadError("has objects in several places, as of several images; write a file for each")
    return tree


def annotation(tree: ET.Element) -> Annotation:
    """The fields of an annotation that a detector needs."""
    name = (tree.findtext("filename") or "").strip()
    objects = [_object(node) for node in _objects(tree)]
    return Annotation(name, tree.findtext("size/height"), tree.findtext("size/width"), objects)


def _object(node: ET.Element) -> ObjectNode:
    """An object; a field that it has twice, or with elements inside, is None, so that no value is chosen in silence."""
    fields = _fields(node)
    box = fields.get("bndbox")
    corners = _fields(box) if box is not None else {}
    name, difficult = fields.get("name"), fields.get("difficult")
    return ObjectNode(
        name=printable(((name.text if name is not None else None) or "").strip()),
        corners=tuple(None if c is None or len(c) else c.text for c in map(corners.get, CORNERS)),
        difficult=difficult.text if difficult is not None else None,
    )


def _fields(node: ET.Element) -> dict[str, ET.Element | None]:
    """The elements in an element by their tag; None for a tag that occurs twice."""
    found: dict[str, ET.Element | None] = {}
    for child in node:
        found[child.tag] = None if child.tag in found else child
    return found


def _objects(tree: ET.Element) -> Iterator[ET.Element]:
    return tree.iter("object")
