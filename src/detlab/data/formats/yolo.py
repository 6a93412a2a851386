"""YOLO data sets: class names, images, and one text file of normalised boxes per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from detlab.data.audit import AuditReport, names, printable
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS, Source, Splits, text_of, unique
from detlab.data.formats.yolo_folders import Folders, Picture, read_folders
from detlab.data.formats.yolo_rows import PointWatch, Row, parse_row
from detlab.data.images import ImageError, inspect
from detlab.data.records import Classes, Record, record
from detlab.data.values import words
from detlab.errors import DataError
from detlab.ranges import OptionsOf, Size
from detlab.system.reading import ReadError


class Yolo(Source):
    """A YOLO data.yaml with path, train, val, test and names; or a folder with classes.txt, images and labels.

    The label file of an image lies at the image's path with `images` replaced by `labels`, or beside the image. Rows
    are class cx cy w h, shares of the image; or a class and a polygon, whose bounding box is used; or, where the yaml
    has kpt_shape, class cx cy w h and key points, which are ignored.

    Args:
        root: the data.yaml, or the folder that holds it.
        images: folder of the images below root, where there is no data.yaml; null for images, or root.
        labels: folder of the label files below root; null for `labels` in place of `images`, or beside the images.
        names: class names, where neither data.yaml nor classes.txt has them.
        outside_root: read files outside the root, too.
    """

    def __init__(
        self,
        *,
        root: str | None,
        images: str | None = None,
        labels: str | None = None,
        names: list[str] | None = None,
        outside_root: bool = False,
    ) -> None:
        self.root, self.images, self.labels, self.names = root, images, labels, names
        self.outside = outside_root

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        folders = read_folders(
            self.root,
            images=self.images,
            labels=self.labels,
            names=self.names,
            outside=self.outside,
            wanted=wanted,
            report=report,
        )
        self.notes = folders.notes
        ids = tuple(folders.names)
        classes = Classes(unique(folders.names.values(), str(folders.file)), ids)
        labels = {key: i for i, key in enumerate(ids)}
        splits: dict[str, list[Record]] = {}
        number, watch = 0, PointWatch()
        for split, pictures in folders.splits.items():
            records, without = [], []
            seen: set[Path] = set()
            for picture in pictures:
                number += 1
                if picture.path in seen:
                    report.add(split, "image listed twice", picture.name)
                    continue
                seen.add(picture.path)
                made = self._record(picture, number, labels, folders.key_points, split, report, watch)
                if made is not None:
                    records.append(made)
                    without += [picture] if picture.label is None else []
            _refuse_unlabelled(split, records, without, folders)
            splits[split] = records
        for split, example in watch.found().items():
            report.add(split, "polygons like key points", example)
        return classes, splits

    def _record(
        self,
        picture: Picture,
        number: int,
        labels: Mapping[int, int],
        key_points: tuple[int, int] | None,
        split: str,
        report: AuditReport,
        watch: PointWatch,
    ) -> Record | None:
        if not picture.path.exists():
            report.add(split, "missing image", picture.name)
            return None
        try:
            height, width = inspect(picture.path, decode=False, max_pixels=self.max_pixels).size
        except ImageError as error:
            report.add(split, "unreadable image", f"{picture.name}: {error}")
            return None
        objects: list[dict[str, Any]] = []
        if picture.label is None:
            report.add(split, "missing label file", picture.name, picture.path)
        else:
            try:
                lines = text_of(picture.label, report, split).content.splitlines()
            except ReadError as error:
                report.add(split, "broken annotation", f"{picture.label.name} {error}")
                return None
            rows = [(f"{picture.label.name}:{i}", parse_row(line, key_points)) for i, line in enumerate(lines, 1)]
            if key_points is None:
                for where, row in rows:
                    if isinstance(row, Row):
                        watch.see(row, split, where)
            objects = _objects(rows, picture.path, (height, width), labels, split, report)
        return record(id=number, name=picture.name, path=picture.path, size=(height, width), objects=objects)


def yolo(
    *,
    root: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    names: Annotated[list[str], Size(1)] | None = None,
    outside_root: bool = False,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A YOLO data set; `loading` goes to `DetectionData`."""
    source = Yolo(root=root, images=images, labels=labels, names=names, outside_root=outside_root)
    return DetectionData(source=source, **loading)


def _objects(
    rows: list[tuple[str, Row | str | None]],
    file: Path,
    size: tuple[int, int],
    labels: Mapping[int, int],
    split: str,
    report: AuditReport,
) -> list[dict[str, Any]]:
    """Boxes in px from the rows of a label file; the report counts rows that cannot be used."""
    height, width = size
    objects = []
    for where, row in rows:
        if row is None:
            continue
        if isinstance(row, str):
            report.add(split, "malformed box", f"{where} {row}", file)
        elif row.category not in labels:
            report.add(split, "unknown class", f"{where} (class {words(row.category)})", file)
        else:
            x1, y1, x2, y2 = row.corners
            box = [x1 * width, y1 * height, x2 * width, y2 * height]
            objects.append({"box": box, "label": labels[row.category]})
    return objects


def _refuse_unlabelled(split: str, records: list[Record], without: list[Picture], folders: Folders) -> None:
    """Refuse a split without any label file: the folder is wrong, since a split of backgrounds only is unlikely.

    Raises:
        DataError: the split is one; the message names the folders that were searched.
    """
    if not records or len(without) < len(records) or split == "test":
        return
    searched = names(dict.fromkeys(printable(str(p)) for picture in without[:2] for p in picture.searched), 4)
    raise DataError(
        f"None of the {len(records)} images of {split} has a label file in {folders.file} (searched: {searched}); "
        f"give the folder of the label files, data.labels=FOLDER, or write an empty one for every image without boxes."
    )
