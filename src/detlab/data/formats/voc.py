"""Pascal VOC folders: one XML file per image, with splits by lists, by folders, or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

from detlab.data.audit import AuditReport
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS, Source, Splits, folder, placed, unique
from detlab.data.formats.voc_folders import Layout, layouts
from detlab.data.formats.voc_xml import Annotation, ObjectNode, annotation, parse
from detlab.data.images import suffixes
from detlab.data.places import Finder, Found, slashed
from detlab.data.records import UNKNOWN, Classes, Record, record
from detlab.data.values import flag, number
from detlab.errors import DataError
from detlab.ranges import OptionsOf, Size
from detlab.system.reading import ReadError

LARGEST_SIDE = 1_000_000  # px; a larger size in an XML file is ignored


class Entry(NamedTuple):
    """One image of a split."""

    stem: str
    facts: Annotation


class Voc(Source):
    """A VOC folder. Its 1-based inclusive corners become continuous pixels: xmin - 1, ymin - 1, xmax, ymax.

    Args:
        root: the data set's folder.
        sets: {train, val, test: name of a list in ImageSets/Main, null, or auto for an existing list}.
        images: folder of the images below root; auto for JPEGImages, images, or beside the annotations.
        annotations: folder of the XML files below root; auto for Annotations, annotations, or beside the images.
        names: class names in label order; null for the names in the annotations, sorted.
        one_based: False for tools that write 0-based corners.
        point_boxes: keep boxes of one pixel; False drops them as accidental clicks.
        outside_root: read files outside the root, too.
    """

    def __init__(
        self,
        *,
        root: str | Path | None,
        sets: Mapping[str, str | None],
        images: str | None = "auto",
        annotations: str | None = "auto",
        names: Sequence[str] | None = None,
        one_based: bool = True,
        point_boxes: bool = True,
        outside_root: bool = False,
    ) -> None:
        self.root, self.sets, self.images, self.annotations = root, dict(sets), images, annotations
        self.names = unique(map(str, names), "data.names") if names else None
        self.one_based, self.point_boxes, self.outside = one_based, point_boxes, outside_root

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        root = folder(self.root, "data.root", "VOC data set (with Annotations inside)")
        found = layouts(
            root, self.sets, self.images, self.annotations, wanted=wanted, outside=self.outside, report=report
        )
        self.notes = tuple(layout.note for layout in found.values() if layout.note)
        entries = {split: self._entries(root, layout, split, report) for split, layout in found.items()}
        names = self.names or unique(sorted(_names_of(entries)), "data.root")
        if not names:
            broken = report.worst()
            raise DataError(
                f"No object is annotated in {root} for the lists of data.sets"
                + (f"; the audit's largest loss is {broken}." if broken else ".")
            )
        labels = {name: i for i, name in enumerate(names)}
        finders = {
            split: Finder(root, found[split].images, outside=self.outside, suffixes=sorted(suffixes()))
            for split in entries
        }
        images = _images(finders, entries)
        splits: dict[str, list[Record]] = {}
        number = 0
        for split, rows in entries.items():
            records = []
            for row, image in zip(rows, images[split], strict=True):
                number += 1
                made = self._record(row, image, number, labels, split, report)
                if made is not None:
                    records.append(made)
            splits[split] = records
        return Classes(names, tuple(range(1, len(names) + 1))), splits

    def _entries(self, root: Path, layout: Layout, split: str, report: AuditReport) -> list[Entry]:
        """The parsed annotations of a split; the report counts missing, broken and repeated ones."""
        finder = Finder(root, [layout.annotations], outside=self.outside, suffixes=[".xml"])
        seen: set[Path] = set()
        entries = []
        for stem, found in zip(layout.stems, finder.find_all([f"{stem}.xml" for stem in layout.stems]), strict=True):
            if found.path is None:
                report.add(split, "image outside the root", stem)
            elif not found.there:
                report.add(split, "missing annotation", f"{stem}.xml")
            elif found.path in seen:
                report.add(split, "image listed twice", stem)
            else:
                seen.add(found.path)
                try:
                    entries.append(Entry(stem, annotation(parse(found.path, split, report))))
                except ReadError as error:
                    report.add(split, "broken annotation", f"{found.path.name} {error}")
        return entries

    def _record(
        self, entry: Entry, image: Found, id: int, labels: dict[str, int], split: str, report: AuditReport
    ) -> Record | None:
        facts = entry.facts
        path = placed(image, facts.filename or entry.stem, split, report)
        if path is None:
            return None
        objects = []
        for node in facts.objects:
            made = self._object(node, entry.stem, path, labels, split, report)
            if made is not None:
                objects.append(made)
        if self.one_based and any(min(o["box"][:2]) < 0 for o in objects):
            report.add(split, "corner at 0", entry.stem, path)
        sides = number(facts.height), number(facts.width)
        known = all(side is not None and 1 <= side <= LARGEST_SIDE for side in sides)
        size = (int(sides[0] or 0), int(sides[1] or 0)) if known else UNKNOWN
        return record(id=id, name=path.name, path=path, size=size, objects=objects)

    def _object(
        self, node: ObjectNode, stem: str, path: Path, labels: dict[str, int], split: str, report: AuditReport
    ) -> dict[str, Any] | None:
        """A box; None, and a finding in the report, if it cannot be used."""
        if node.name not in labels:
            report.add(split, "unknown class", f"{stem}: {node.name!r}", path)
            return None
        x1, y1, x2, y2 = (number(corner) for corner in node.corners)
        if x1 is None or y1 is None or x2 is None or y2 is None:
            report.add(split, "malformed box", f"{stem}: {node.name}", path)
            return None
        if not self.point_boxes and x1 == x2 and y1 == y2:
            report.add(split, "degenerate box", f"{stem} {[x1, y1, x2, y2]}", path)
            return None
        difficult = flag(node.difficult)
        if difficult is None:
            report.add(split, "unclear flag", f"{stem}: difficult {node.difficult!r}", path)
        shift = 1.0 if self.one_based else 0.0
        box = [x1 - shift, y1 - shift, x2, y2]
        return {"box": box, "label": labels[node.name], "difficult": bool(difficult)}


def voc(
    *,
    root: str | None = None,
    sets: Mapping[str, str | None],
    images: str | None = "auto",
    annotations: str | None = "auto",
    names: Annotated[list[str], Size(1)] | None = None,
    one_based: bool = True,
    point_boxes: bool = True,
    outside_root: bool = False,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A VOC data set; `loading` goes to `DetectionData`."""
    source = Voc(
        root=root,
        sets=sets,
        images=images,
        annotations=annotations,
        names=names,
        one_based=one_based,
        point_boxes=point_boxes,
        outside_root=outside_root,
    )
    return DetectionData(source=source, **loading)


def _names_of(entries: dict[str, list[Entry]]) -> set[str]:
    return {o.name for rows in entries.values() for row in rows for o in row.facts.objects} - {""}


def _images(finders: Mapping[str, Finder], entries: Mapping[str, Sequence[Entry]]) -> dict[str, list[Found]]:
    """The images of each split; one that several annotations lead to is only theirs whose name it bears."""
    found = {
        split: [_image(finders[split], row.stem, row.facts.filename) for row in rows] for split, rows in entries.items()
    }
    uses: dict[Path | None, set[str]] = {}  # the names that lead to each file; two splits may hold one image
    for split, images in found.items():
        for image, row in zip(images, entries[split], strict=True):
            uses.setdefault(image.path, set()).add(slashed(row.stem))

    def own(image: Found, stem: str) -> bool:
        path = image.path.as_posix() if image.path is not None else ""
        return path[: -len(Path(path).suffix) or None].endswith(f"/{slashed(stem)}")

    return {
        split: [
            image
            if len(uses[image.path]) < 2 or own(image, row.stem)
            else Found(str(finders[split].folders[0] / f"{row.stem}.jpg"))
            for image, row in zip(images, entries[split], strict=True)
        ]
        for split, images in found.items()
    }


def _image(finder: Finder, stem: str, named: str) -> Found:
    """The image of an annotation: by its list entry, else by the name in the XML; if both have one stem, the XML's."""
    looks = [stem, named] if named else [stem]
    bare = PurePosixPath(slashed(named)).name
    if named and Path(bare).stem == Path(stem).name:
        looks = [str(PurePosixPath(slashed(stem)).parent / bare), named, stem]
    found = [finder.find(look) for look in looks]
    there = sorted((f for f in found if f.there), key=lambda f: f.corrected)  # those that are as written first
    if there:
        return there[0]
    return found[looks.index(named)] if named else Found(str(finder.folders[0] / f"{stem}.jpg"))
