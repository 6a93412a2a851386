"""Pascal VOC folders: JPEGImages, Annotations/*.xml and ImageSets/Main/*.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree as ET

from detlab.data.audit import AuditReport, inside
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import Source, Splits, folder
from detlab.data.records import Classes, Record, record
from detlab.errors import DataError
from detlab.ranges import OptionsOf

MAX_XML_BYTES = 10_000_000
LARGEST_SIDE = 1_000_000  # px; a size beyond it, or infinite, counts as not given
EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".webp")


class Voc(Source):
    """A VOC folder. Its 1-based inclusive corners become continuous pixels: xmin - 1, ymin - 1, xmax, ymax.

    Args:
        root: the folder that holds Annotations.
        sets: {train, val, test: name of a list in ImageSets/Main, or null}.
        names: class names in label order; null takes those in the annotations, sorted.
        one_based: False where a tool wrote 0-based corners.
    """

    def __init__(
        self,
        *,
        root: str | Path | None,
        sets: dict[str, str | None],
        names: list[str] | None = None,
        one_based: bool = True,
    ) -> None:
        self.root, self.sets, self.names, self.one_based = root, sets, names, one_based

    def read(self, report: AuditReport) -> tuple[Classes, Splits]:
        root = folder(self.root, "data.root", "VOC data set (with Annotations inside)")
        parsed: dict[str, list[tuple[str, Path | None, ET.Element]]] = {}
        number = 0
        for split, listing in self.sets.items():
            if not listing:
                continue
            rows = []
            for stem in _stems(root, listing, f"data.sets.{split}"):
                xml = inside(root / "Annotations", f"{stem}.xml")
                if xml is None:
                    report.add(split, "image outside the root", stem)
                elif not xml.is_file():
                    report.add(split, "missing annotation", f"Annotations/{stem}.xml")
                else:
                    rows.append((stem, xml, _parse(xml)))
            parsed[split] = rows
        if not parsed:
            raise DataError("data.sets names no list; give data.sets.train=train, a file of ImageSets/Main.")
        found = {
            (node.findtext("name") or "").strip()
            for rows in parsed.values()
            for _, _, tree in rows
            for node in tree.iter("object")
        }
        names = tuple(self.names) if self.names else tuple(sorted(found - {""}))
        if not names:
            raise DataError(f"No object is annotated in {root}/Annotations for the lists of data.sets.")
        labels = {name: i for i, name in enumerate(names)}
        splits: Splits = {}
        for split, rows in parsed.items():
            records = []
            for stem, _, tree in rows:
                number += 1
                made = self._record(root, stem, tree, number, labels, split, report)
                if made is not None:
                    records.append(made)
            splits[split] = records
        return Classes(names, tuple(range(1, len(names) + 1))), splits

    def _record(
        self,
        root: Path,
        stem: str,
        tree: ET.Element,
        number: int,
        labels: dict[str, int],
        split: str,
        report: AuditReport,
    ) -> Record | None:
        path = _image_path(root / "JPEGImages", stem, tree.findtext("filename"))
        if path is None:
            report.add(split, "image outside the root", f"{stem}: {tree.findtext('filename')}")
            return None
        objects: list[dict[str, Any]] = []
        shift = 1.0 if self.one_based else 0.0
        for node in tree.iter("object"):
            name = (node.findtext("name") or "").strip()
            if name not in labels:
                report.add(split, "unknown class", f"{stem}: {name!r}")
                continue
            corners = _corners(node)
            if corners is None:
                report.add(split, "malformed box", f"{stem}: {name}")
                continue
            x1, y1, x2, y2 = corners
            if x2 < x1 or y2 < y1 or (x1, y1) == (x2, y2) or x1 == x2 or y1 == y2:
                report.add(split, "degenerate box", f"{stem} {[x1, y1, x2, y2]}")
                continue
            objects.append(
                {
                    "box": [x1 - shift, y1 - shift, x2, y2],
                    "label": labels[name],
                    "difficult": (node.findtext("difficult") or "0").strip() == "1",
                }
            )
        size = _number(tree.findtext("size/height")), _number(tree.findtext("size/width"))
        known = all(side and 1 <= side <= LARGEST_SIDE for side in size)
        return record(
            id=number,
            name=path.name,
            path=path,
            size=(int(size[0]), int(size[1])) if known else (0, 0),
            objects=objects,
        )


def voc(
    *,
    root: str | None = None,
    sets: dict[str, str | None],
    names: list[str] | None = None,
    one_based: bool = True,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A VOC data set; `loading` goes to `DetectionData`."""
    return DetectionData(source=Voc(root=root, sets=sets, names=names, one_based=one_based), **loading)


def _stems(root: Path, listing: str, option: str) -> list[str]:
    path = inside(root / "ImageSets" / "Main", f"{listing}.txt")
    if path is None or not path.is_file():
        have = sorted(p.stem for p in (root / "ImageSets" / "Main").glob("*.txt"))
        raise DataError(
            f"{option}={listing} has no list ImageSets/Main/{listing}.txt in {root}; "
            + (f"it has {', '.join(have[:8])}." if have else "set it to null, or write the list.")
        )
    return [line.split()[0] for line in path.read_text(errors="replace").splitlines() if line.strip()]


def _parse(path: Path) -> ET.Element:
    """Parse an annotation; documents with a DTD (entity bombs) and huge ones are refused."""
    text = path.read_bytes()
    if len(text) > MAX_XML_BYTES or b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
        raise DataError(f"{path} is too large, declares a DTD or is in UTF-16, which could hide one; save it as UTF-8.")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, LookupError, ValueError) as error:  # the latter two from strange encodings
        raise DataError(f"{path} is not valid XML ({error}); mend or remove it.") from error


def _image_path(images: Path, stem: str, named: str | None) -> Path | None:
    """The image of an annotation: by its list entry, else by the name in the XML; None if outside the folder."""
    for extension in EXTENSIONS:
        path = inside(images, stem + extension)
        if path is not None and path.is_file():
            return path
    return inside(images, named.strip() if named else f"{stem}.jpg")


def _corners(node: ET.Element) -> tuple[float, float, float, float] | None:
    values = [_number(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    return None if any(value is None for value in values) else tuple(values)


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
