"""COCO json annotations: any file with images, annotations and categories."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from detlab.data.audit import AuditReport, names, printable
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import AUTO, SPLIT_NAMES, SPLITS, Source, Splits, folder, placed, text_of
from detlab.data.places import Finder, followed, slashed
from detlab.data.records import Classes, Record, record
from detlab.data.values import flag, number, whole, words
from detlab.errors import DataError
from detlab.ranges import OptionsOf
from detlab.system.reading import ReadError, load_json

Row = dict[str, Any]  # an object of a json file, not checked yet
Key = int | str  # an id: an integer if it can be read as one, else the text
OF_SPLIT = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}2014.json",
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",  # Roboflow
    "{}.json",
    "instances_{}.json",
    "{}/annotations.json",
    "annotations/instances_{}_default.json",
)
OF_ALL = ("annotations/instances_default.json", "_annotations.coco.json", "result.json", "annotations.json")
FOLDERS = ("{}2017", "{}2014", "images/{}2017", "images/{}", "{}/images", "{}", "images", "images/default")


class Document(NamedTuple):
    """One json file."""

    name: str  # as the option gives it
    path: Path
    images: list[Row]
    annotations: list[Row]
    categories: dict[Key, str]
    headings: dict[str, str]  # class name -> supercategory


class Coco(Source):
    """One json file per split, with its folder of images.

    Category ids may differ between files: classes are matched by name, and have the ids of the first file.

    Args:
        root: folder that all paths are relative to and must lie in.
        annotations: {train, val, test: json file, null, or auto for one of the usual names}; a single name is train's.
        images: {train, val, test: folder of images, null for root, or auto}; a single name is for all splits.
        outside_root: read images and json files outside the root, too.
    """

    def __init__(
        self,
        *,
        root: str | None,
        annotations: Mapping[str, str | None] | str,
        images: Mapping[str, str | None] | str | None,
        outside_root: bool = False,
    ) -> None:
        self.root, self.outside = root, outside_root
        self.annotations = {"train": annotations} if isinstance(annotations, str) else dict(annotations)
        self.images = dict(images) if isinstance(images, Mapping) else dict.fromkeys(SPLITS, images)

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        root = folder(self.root, "data.root", "images and COCO json files")
        files = self._files(root, wanted)
        documents = {
            split: _document(Finder(root, [], outside=self.outside), name, split, report)
            for split, name in files.items()
        }
        classes = _classes(documents, report)
        splits: Splits = {}
        for split, document in documents.items():
            finder = Finder(root, self._folders(root, split, document), outside=self.outside)
            splits[split] = _Reader(document, classes, finder, split, report).records()
        return classes, splits

    def _files(self, root: Path, wanted: Collection[str]) -> dict[str, str]:
        """The json file of each wanted split that has one."""
        files: dict[str, str] = {}
        for split in (s for s in SPLITS if s in wanted):
            name = self.annotations.get(split)
            if name == AUTO:
                usual = [pattern.format(word) for word in SPLIT_NAMES[split] for pattern in OF_SPLIT]
                name = next((n for n in usual if (root / n).is_file()), None)
                if name is None and split == "train":
                    name = _of_all(root)
                self.notes += (f"data.annotations.{split}={name}",) if name else ()
            if name:
                files[split] = name
        if not files:
            have = sorted(str(p.relative_to(root)) for p in [*root.glob("*.json"), *root.glob("annotations/*.json")])
            raise DataError(
                "data.annotations names no file"
                + (f" for {', '.join(wanted)}" if set(wanted) != set(SPLITS) else "")
                + f"; give data.annotations.train=FILE.json; {root} "
                + (f"has {names(have)}." if have else "has no json file.")
            )
        return files

    def _folders(self, root: Path, split: str, document: Document) -> list[Path]:
        """The folders that a split's image names are relative to."""
        given = self.images.get(split)
        if given and given != AUTO:
            path = followed(root / Path(given).expanduser())
            finder = Finder(root, [], outside=self.outside)
            if not path.is_dir():
                raise DataError(
                    f"data.images.{split}={given} is not a folder of {root}; give the folder of its images."
                )
            if not finder.allowed(path):
                raise DataError(
                    f"data.images.{split}={given} leaves {root}; set data.outside_root=true if it is yours."
                )
            return [path]
        if given is None:
            return [root]
        usual = [root / pattern.format(word) for word in SPLIT_NAMES[split] for pattern in FOLDERS]
        return [document.path.parent, *dict.fromkeys(p for p in map(followed, usual) if p.is_dir())]


def coco(
    *,
    root: str | None = None,
    annotations: Mapping[str, str | None] | str,
    images: Mapping[str, str | None] | str | None,
    outside_root: bool = False,
    **loading: Annotated[Any, OptionsOf(DetectionData)],
) -> DetectionData:
    """A COCO data set; `loading` goes to `DetectionData`."""
    source = Coco(root=root, annotations=annotations, images=images, outside_root=outside_root)
    return DetectionData(source=source, **loading)


def _of_all(root: Path) -> str | None:
    """The json file of a data set with a single one, relative to root; None if there is none."""
    usual = next((n for n in OF_ALL if (root / n).is_file()), None)
    if usual is not None:
        return usual
    others = {pattern.format(word) for split in ("val", "test") for word in SPLIT_NAMES[split] for pattern in OF_SPLIT}
    have = [str(p.relative_to(root)) for p in [*root.glob("*.json"), *root.glob("annotations/*.json")]]
    return have[0] if len(have) == 1 and have[0] not in others else None


def _document(finder: Finder, name: str, split: str, report: AuditReport) -> Document:
    option = f"data.annotations.{split}={name}"
    path = followed(finder.root / Path(name).expanduser())
    if not finder.allowed(path):
        raise DataError(f"{option} leaves data.root={finder.root}; set data.outside_root=true if it is yours.")
    if not path.exists():
        raise DataError(f"{option} is not a file under data.root={finder.root}; give its path.")
    try:
        content = load_json(text_of(path, report, split).content)
    except ReadError as error:
        raise DataError(f"{option} {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{option} holds a {type(content).__name__}, not a COCO object with 'images'.")
    rows = {key: _list(content, key, name) for key in ("images", "annotations", "categories")}
    categories: dict[Key, str] = {}
    headings: dict[str, str] = {}
    for row in rows["categories"]:
        key, title = _key(row.get("id")), row.get("name")
        if key is None or isinstance(title, bool) or not isinstance(title, str | int | float) or not str(title).strip():
            raise DataError(f"{name}: the category {words(row, 80)} needs a name, and a whole number or text as id.")
        title = printable(str(title).strip())
        if categories.get(key, title) != title:
            raise DataError(
                f"{name}: categories {categories[key]!r} and {title!r} have the same id {key}; renumber one."
            )
        other = next((k for k, n in categories.items() if n == title and k != key), None)
        if other is not None:
            raise DataError(
                f"{name}: two categories are named {title!r}, ids {other} and {key}; rename one, or give both one id, "
                f"so that their results can be told apart."
            )
        categories[key] = title
        headings[title] = str(row.get("supercategory") or "none").strip()
    if not categories:
        raise DataError(f"{name} names no class under 'categories'.")
    return Document(name, path, rows["images"], rows["annotations"], categories, headings)


def _classes(files: Mapping[str, Document], report: AuditReport) -> Classes:
    """Classes of all files by name, sorted by the first file's ids, then those that only later files have."""
    ids: dict[str, Key] = {}
    documents = list(files.values())
    for document in documents:
        for key, name in sorted(document.categories.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])):
            ids.setdefault(name, key)
    used = {_key(row.get("category_id")) for document in documents for row in document.annotations}
    with_boxes = {name for d in documents for key, name in d.categories.items() if key in used}
    for split, document in files.items():
        parents = {parent for name, parent in document.headings.items() if parent != name}
        for name, parent in document.headings.items():  # Roboflow lists the project itself as category 0
            heads = name in parents and parent in ("none", name) and name not in with_boxes and name in ids
            if heads and len(ids) > 1:
                del ids[name]
                report.add(split, "class that heads others", name)
    taken: set[int] = set()
    numbers = []
    for key in ids.values():
        free = key if isinstance(key, int) and key not in taken else max(taken, default=0) + 1
        taken.add(free)
        numbers.append(free)
    return Classes(tuple(ids), tuple(numbers))


class _Reader:
    """The records of one file."""

    def __init__(self, document: Document, classes: Classes, finder: Finder, split: str, report: AuditReport) -> None:
        self.document, self.finder, self.split, self.report = document, finder, split, report
        labels = {name: i for i, name in enumerate(classes.names)}
        self.labels = {key: labels[name] for key, name in document.categories.items() if name in labels}
        self.paths: dict[Key, Path | None] = {}  # of images by id

    def records(self) -> list[Record]:
        """Images with their boxes, by id."""
        keys = [self._image_key(row) for row in self.document.images]
        numbers = _numbers(keys)
        paths = self._paths(keys)
        self.paths = dict(zip(keys, paths, strict=True))
        objects: dict[Key, list[Row]] = {key: [] for key in keys}
        for row in self.document.annotations:
            found = self._object(row, objects)
            if found is not None:
                objects[found.pop("image")].append(found)
        records = []
        for key, row, path in zip(keys, self.document.images, paths, strict=True):
            if path is not None:
                records.append(self._record(numbers[key], row, path, objects[key]))
        return sorted(records, key=lambda r: r.id)

    def _image_key(self, row: Row) -> Key:
        key = _key(row.get("id"))
        if key is None:
            raise DataError(
                f"{self.document.name}: 'id' of {words(row, 80)} is no whole number of 64 bits, and no text."
            )
        return key

    def _paths(self, keys: list[Key]) -> list[Path | None]:
        """The file of each image; None, and a finding, if none may be read, or two files share its id."""
        named: dict[Key, set[str]] = {}
        names = [row.get("file_name") for row in self.document.images]
        for key, name in zip(keys, names, strict=True):
            named.setdefault(key, set()).add(slashed(name) if isinstance(name, str) else "")
        usable: dict[int, str] = {}
        for i, (key, name) in enumerate(zip(keys, names, strict=True)):
            if not isinstance(name, str) or not name.strip():
                self.report.add(self.split, "missing image", f"image id {words(key)} has no file_name")
            elif len(named[key]) > 1:
                self.report.add(self.split, "image id of two files", f"id {words(key)} ({name})")
            else:
                usable[i] = name
        found = dict(zip(usable, self.finder.find_all(list(usable.values())), strict=True))
        placed_at = {i: placed(found[i], name, self.split, self.report) for i, name in usable.items()}
        return [placed_at.get(i) for i in range(len(keys))]

    def _record(self, number: int, row: Row, path: Path, objects: list[Row]) -> Record:
        name = str(row["file_name"])
        sides = whole(row.get("height")) or 0, whole(row.get("width")) or 0
        size = sides if min(sides) > 0 else (0, 0)
        return record(id=number, name=printable(name.replace("\\", "/")), path=path, size=size, objects=objects)

    def _object(self, row: Row, images: Mapping[Key, object]) -> Row | None:
        """A box with its image; None, and a finding in the report, if it cannot be used."""
        image, category = _key(row.get("image_id")), _key(row.get("category_id"))
        name = f"annotation {words(row.get('id'), 40)}"
        file = self.paths.get(image) if image is not None else None
        if image is None or image not in images:
            self.report.add(
                self.split, "annotation without image", f"{name} (image_id {words(row.get('image_id'), 40)})"
            )
        elif category is None or category not in self.labels:
            example = f"{name} (category_id {words(row.get('category_id'), 40)})"
            self.report.add(self.split, "unknown class", example, file)
        elif (box := _box(row.get("bbox"))) is None:
            self.report.add(self.split, "malformed box", f"{name} {words(row.get('bbox'))}", file)
        else:
            crowd = flag(row.get("iscrowd"))
            if crowd is None:
                example = f"{name} (iscrowd {words(row['iscrowd'], 40)})"
                self.report.add(self.split, "unclear flag", example, file)
            area = number(row.get("area"))
            return {"image": image, "box": box, "label": self.labels[category], "area": area, "crowd": bool(crowd)}
        return None


def _numbers(keys: list[Key]) -> dict[Key, int]:
    """Integer ids as they are; each text id gets the next free number."""
    used = {key for key in keys if isinstance(key, int)}
    fresh = (i for i in itertools.count(1) if i not in used)
    return {key: key if isinstance(key, int) else next(fresh) for key in dict.fromkeys(keys)}


def _list(document: Row, key: str, file: str) -> list[Row]:
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} has no list of objects under {key!r}; it is not a COCO annotation file.")
    return rows


def _key(value: object) -> Key | None:
    """An id: 1, 1.0 and "1" are the same; other text stays text; None if it is neither."""
    found = whole(value)
    if found is not None:
        return found
    return value if isinstance(value, str) and value.strip() else None


def _box(value: object) -> list[float] | None:
    """COCO's (x, y, w, h) as xyxy; None if it is not a list of four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, w, h = (number(v) for v in value)
    if x is None or y is None or w is None or h is None:
        return None
    return [x, y, x + w, y + h]
