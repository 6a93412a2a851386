"""Tables with a row for each box, as Roboflow, labelImg's scripts, Open Images, AutoML and many scripts write them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from detlab.data.audit import AuditReport, names, printable
from detlab.data.datamodule import DetectionData
from detlab.data.formats.csv_table import Row, Table, corners, has_box, read_table, split_of
from detlab.data.formats.source import (
    AUTO,
    SPLIT_NAMES,
    SPLITS,
    Source,
    Splits,
    folder,
    left_the_root,
    placed,
    unique,
)
from detlab.data.formats.voc_folders import IMAGES
from detlab.data.images import ImageError, inspect, list_images, suffixes
from detlab.data.places import Finder, real_folder
from detlab.data.records import UNKNOWN, Classes, Record, record
from detlab.data.values import flag, whole, words
from detlab.errors import DataError
from detlab.ranges import OneOf, OptionsOf, Size

OF_SPLIT = (
    "{}.csv",
    "{}/_annotations.csv",  # Roboflow
    "{}_labels.csv",  # TensorFlow's tutorials
    "{}_annotations.csv",
    "annotations/{}.csv",
    "data/{}_labels.csv",
    "images/{}_labels.csv",
)
OF_ALL = ("annotations.csv", "_annotations.csv", "labels.csv", "boxes.csv", "annotations/annotations.csv")
FOLDERS = ("{}", "images/{}", "{}/images")  # of a split's images, besides its table's
UNLISTED = ("ignore", "empty")


class Picture(NamedTuple):
    """One image of a split with its rows."""

    name: str  # as the table writes it
    path: Path
    rows: list[tuple[Table, Row]]


class CsvBoxes(Source):
    """Tables with a row for each box; a row without numbers names an image without boxes.

    Args:
        root: the folder that holds everything, or train's table.
        annotations: {train, val, test: file, null, or auto for one of the usual names}; one name is train's. A column
            called split divides a file.
        images: folder of the images below root; auto for the usual ones, or beside the table.
        names: class names in label order; null takes those in the tables, sorted.
        one_based: corners count from 1, as VOC's do.
        unlisted: images that no table names: ignore them, or take them as images without boxes.
        outside_root: read files outside the root, too.
    """

    def __init__(
        self,
        *,
        root: str | None,
        annotations: Mapping[str, str | None] | str,
        images: str | None = "auto",
        names: Sequence[str] | None = None,
        one_based: bool = False,
        unlisted: str = "ignore",
        outside_root: bool = False,
    ) -> None:
        if unlisted not in UNLISTED:
            raise DataError(f"data.unlisted={unlisted} is not known; use one of {', '.join(UNLISTED)}.")
        self.root, self.images, self.one_based, self.outside = root, images, one_based, outside_root
        self.annotations = {"train": annotations} if isinstance(annotations, str) else dict(annotations)
        self.names = unique(map(str, names), "data.names") if names else None
        self.unlisted = unlisted

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        root, files = self._files(wanted)
        tables = {s: read_table(root, name, s, report, outside=self.outside) for s, name in files.items()}
        rows: dict[str, list[tuple[Table, Row]]] = {}
        for split, table in tables.items():
            for row in table.rows:
                rows.setdefault(split_of(row, split, table.name), []).append((table, row))
        class_names = self.names or unique(_classes_of(tables.values()), str(root))
        if not class_names:
            raise DataError(
                f"{names(t.name for t in tables.values())} has no row with a box and a class; see its columns."
            )
        labels = {name: i for i, name in enumerate(class_names)}
        splits: dict[str, list[Record]] = {}
        listed: dict[str, list[Picture]] = {}
        count = 0
        for split in (s for s in SPLITS if s in rows and s in wanted):
            finder = Finder(root, self._folders(root, tables, split), outside=self.outside, suffixes=sorted(suffixes()))
            listed[split] = _pictures(rows[split], finder, split, report)
            made = [self._record(p, count + i, labels, split, report) for i, p in enumerate(listed[split], 1)]
            splits[split] = [item for item in made if item is not None]
            count += len(made)
        self._unlisted(root, listed, splits, count, report)
        return Classes(class_names, tuple(range(1, len(class_names) + 1))), splits

    def _files(self, wanted: Collection[str]) -> tuple[Path, dict[str, str]]:
        """The root, and the table of each wanted split; train's too where a split has none: a column may divide it."""
        given = Path(self.root).expanduser() if self.root else None
        asked = dict(self.annotations)
        if given is not None and given.is_file():
            root, asked["train"] = given.absolute().parent, given.name
        else:
            root = folder(self.root, "data.root", "images and CSV files, or train's file")
        found: dict[str, str] = {}
        notes = []
        for split in SPLITS:
            name = asked.get(split)
            if name == AUTO:
                name = _usual(root, split, set(found.values()))
                notes += [f"data.annotations.{split}={name}"] if name else []
            if name:
                found[split] = name
        self.notes = tuple(notes)
        files = {split: name for split, name in found.items() if split in wanted}
        if "train" in found and any(split not in found for split in wanted):
            files["train"] = found["train"]
        if not files:
            have = sorted(p.name for p in root.glob("*.csv"))
            raise DataError(
                "data.annotations names no file; give data.annotations.train=FILE.csv; "
                + (f"{root} has {names(have)}." if have else f"{root} has no CSV file.")
            )
        return root, {split: files[split] for split in SPLITS if split in files}

    def _folders(self, root: Path, tables: Mapping[str, Table], split: str) -> list[Path]:
        """The folders that a split's names are relative to: its own first."""
        if self.images not in (AUTO, None):
            path = real_folder(root / Path(str(self.images)).expanduser())
            if path is None:
                raise DataError(f"data.images={self.images} is not a folder of {root}; give the folder of your images.")
            if not Finder(root, [], outside=self.outside).allowed(path):
                raise left_the_root("data.images", str(self.images), root)
            return [path, *(p for word in SPLIT_NAMES[split] if (p := real_folder(path / word)) is not None)]
        own = [tables[split].path.parent] if split in tables else []
        usual = [pattern.format(word) for word in SPLIT_NAMES[split] for pattern in FOLDERS]
        bases = dict.fromkeys([root, *own])
        there = [p for base in bases for n in (*usual, *IMAGES) if (p := real_folder(base / n)) is not None]
        return [*dict.fromkeys([*own, *there, *(table.path.parent for table in tables.values())])]

    def _record(
        self, picture: Picture, id: int, labels: Mapping[str, int], split: str, report: AuditReport
    ) -> Record | None:
        """An image with its boxes; None if its size is needed and cannot be read."""
        height, width = (whole(picture.rows[0][1].get(key)) or 0 for key in ("height", "width"))
        size = (height, width) if min(height, width) > 0 else UNKNOWN
        if size == UNKNOWN and any(table.shares for table, _ in picture.rows) and picture.path.is_file():
            try:
                size = inspect(picture.path, decode=False, max_pixels=self.max_pixels).size
            except ImageError as error:
                report.add(split, "unreadable image", f"{picture.name}: {error}")
                return None
        name = printable(picture.name)
        made = [self._object(table, row, size, picture, labels, split, report) for table, row in picture.rows]
        objects = [item for item in made if item is not None]
        return record(id=id, name=name, path=picture.path, size=size, objects=objects)

    def _object(
        self,
        table: Table,
        row: Row,
        size: tuple[int, int],
        picture: Picture,
        labels: Mapping[str, int],
        split: str,
        report: AuditReport,
    ) -> dict[str, Any] | None:
        """A box in px; None, and a finding in the report, if it cannot be used."""
        if not has_box(row, table.keys):
            return None
        where, name = f"{picture.name}: {words(row['class'], 40)}", printable(row["class"])
        box = corners(row, table.keys)
        if box is None:
            report.add(split, "malformed box", f"{where} {[words(row[key], 20) for key in table.keys]}", picture.path)
            return None
        if name not in labels:
            report.add(split, "unknown class", where, picture.path)
            return None
        if table.shares:
            box = [share * side for share, side in zip(box, (size[1], size[0]) * 2, strict=True)]
        elif self.one_based:  # VOC's xmin 1 is the left border, xmax the right border of the last pixel
            box = [box[0] - 1, box[1] - 1, box[2], box[3]] if "x1" in table.keys else [v - 1 for v in box]
        flags = {key: flag(row.get(key)) for key in ("crowd", "difficult")}
        for key in (key for key, value in flags.items() if value is None):
            report.add(split, "unclear flag", f"{where} ({key} {words(row[key], 40)})", picture.path)
        return {"box": box, "label": labels[name], **{key: bool(value) for key, value in flags.items()}}

    def _unlisted(
        self,
        root: Path,
        listed: Mapping[str, list[Picture]],
        splits: dict[str, list[Record]],
        count: int,
        report: AuditReport,
    ) -> None:
        """Count the images that no table names, and add them as images without boxes if data.unlisted says so.

        They are searched in data.images, or in the folders that hold listed images; an image belongs to the split
        whose images alone lie in its folder, else to train.
        """
        known = {picture.path.resolve() for pictures in listed.values() for picture in pictures}
        places: dict[Path, set[str]] = {}
        for split, pictures in listed.items():
            for picture in pictures:
                places.setdefault(picture.path.parent, set()).add(split)
        within = None if self.outside else root
        if self.images not in (AUTO, None):
            top = real_folder(root / Path(str(self.images)).expanduser())
            found = list_images(top, within).images if top is not None else []
        else:
            folders = [place for place in sorted(places) if place.is_dir()]
            found = [p for place in folders for p in list_images(place, within).images if p.parent == place]
        allowed = Finder(root, [], outside=self.outside).allowed
        for path in (p for p in found if p.resolve() not in known and allowed(p)):
            own = places.get(path.parent, set())
            split = next(iter(own)) if len(own) == 1 else "train"
            if split not in splits:
                continue
            report.add(split, "image without a row" if self.unlisted == "ignore" else "unlisted image", path.name)
            if self.unlisted == "empty":
                count += 1
                splits[split].append(record(id=count, name=printable(path.name), path=path, size=UNKNOWN, objects=[]))


def csv_boxes(
    *,
    root: str | None = None,
    annotations: Mapping[str, str | None] | str,
    images: str | None = "auto",
    names: Annotated[Sequence[str], Size(1)] | None = None,
    one_based: bool = False,
    unlisted: Annotated[str, OneOf(UNLISTED)] = "ignore",
    outside_root: bool = False,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A data set of CSV files; `loading` goes to `DetectionData`."""
    source = CsvBoxes(
        root=root,
        annotations=annotations,
        images=images,
        names=names,
        one_based=one_based,
        unlisted=unlisted,
        outside_root=outside_root,
    )
    return DetectionData(source=source, **loading)


def _usual(root: Path, split: str, taken: Collection[str]) -> str | None:
    """The table of a split under one of the usual names; for train also the only CSV file of the root."""
    usual = [pattern.format(word) for word in SPLIT_NAMES[split] for pattern in OF_SPLIT]
    usual += OF_ALL if split == "train" else ()
    name = next((n for n in usual if (root / n).is_file() and n not in taken), None)
    have = sorted(p.name for p in root.glob("*.csv"))
    return have[0] if name is None and split == "train" and len(have) == 1 else name


def _classes_of(tables: Iterable[Table]) -> list[str]:
    """The class names of all boxes, sorted; numbers by their value."""
    found = {printable(r["class"]) for table in tables for r in table.rows if has_box(r, table.keys) and r["class"]}
    order = {name: number for name in found if (number := whole(name)) is not None}
    return sorted(found, key=lambda name: (order[name] if len(order) == len(found) else 0, name))


def _pictures(rows: list[tuple[Table, Row]], finder: Finder, split: str, report: AuditReport) -> list[Picture]:
    """The images that rows name, in the order in which they come; two spellings of a file are one image."""
    files = list(dict.fromkeys(row["file"] for _, row in rows if row["file"]))
    places = {name: placed(one, name, split, report) for name, one in zip(files, finder.find_all(files), strict=True)}
    found: dict[Path, Picture] = {}
    for table, row in rows:
        name = row["file"]
        if not name:
            report.add(split, "annotation without image", f"{table.name}: a row without a file name")
            continue
        path = places[name]
        if path is not None:
            found.setdefault(path, Picture(name, path, [])).rows.append((table, row))
    return list(found.values())
