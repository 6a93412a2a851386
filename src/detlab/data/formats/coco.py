"""COCO json annotations: any file with images, annotations and categories."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from detlab.data.audit import AuditReport, names, printable
from detlab.data.datamodule import DetectionData
from detlab.data.flat import Records
from detlab.data.formats.coco_cache import kept_rows
from detlab.data.formats.coco_reader import Document, Key, Reader, id_of
from detlab.data.formats.coco_rows import Rows, rows_of
from detlab.data.formats.source import AUTO, SPLIT_NAMES, SPLITS, Source, Splits, folder, text_of
from detlab.data.places import Finder, followed
from detlab.data.records import Classes
from detlab.data.values import words
from detlab.errors import DataError
from detlab.ranges import OptionsOf
from detlab.system.reading import ReadError, load_json

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
            split: _document(Finder(root, [], outside=self.outside), name, split, report, self.cache_dir)
            for split, name in files.items()
        }
        classes = _classes(documents, report)
        splits: dict[str, Records] = {}
        for split, document in documents.items():
            finder = Finder(root, self._folders(root, split, document), outside=self.outside)
            splits[split] = Reader(document, classes, finder, split, report).records()
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


def _document(finder: Finder, name: str, split: str, report: AuditReport, cache_dir: Path | None) -> Document:
    option = f"data.annotations.{split}={name}"
    path = followed(finder.root / Path(name).expanduser())
    if not finder.allowed(path):
        raise DataError(f"{option} leaves data.root={finder.root}; set data.outside_root=true if it is yours.")
    if not path.exists():
        raise DataError(f"{option} is not a file under data.root={finder.root}; give its path.")
    rows = kept_rows(path, name, cache_dir) or _whole(path, option, name, split, report)
    categories: dict[Key, str] = {}
    headings: dict[str, str] = {}
    keys: dict[str, Key] = {}  # of the names
    for row in rows.categories:
        key, title = id_of(row.get("id")), row.get("name")
        if key is None or isinstance(title, bool) or not isinstance(title, str | int | float) or not str(title).strip():
            raise DataError(f"{name}: the category {words(row, 80)} needs a name, and a whole number or text as id.")
        title = printable(str(title).strip())
        if categories.get(key, title) != title:
            raise DataError(
                f"{name}: categories {categories[key]!r} and {title!r} have the same id {key}; renumber one."
            )
        if keys.setdefault(title, key) != key:
            raise DataError(
                f"{name}: two categories are named {title!r}, ids {keys[title]} and {key}; rename one, or give both "
                f"one id, so that their results can be told apart."
            )
        categories[key] = title
        headings[title] = str(row.get("supercategory") or "none").strip()
    if not categories:
        raise DataError(f"{name} names no class under 'categories'.")
    return Document(name, path, rows, categories, headings)


def _whole(path: Path, option: str, name: str, split: str, report: AuditReport) -> Rows:
    """The rows of a file that cannot be read piece by piece: in another encoding, or no COCO file at all."""
    try:
        content = load_json(text_of(path, report, split).content)
    except ReadError as error:
        raise DataError(f"{option} {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{option} holds a {type(content).__name__}, not a COCO object with 'images'.")
    return rows_of(content, name)


def _classes(files: Mapping[str, Document], report: AuditReport) -> Classes:
    """Classes of all files by name, sorted by the first file's ids, then those that only later files have."""
    ids: dict[str, Key] = {}
    documents = list(files.values())
    for document in documents:
        for key, name in sorted(document.categories.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])):
            ids.setdefault(name, key)
    used = {id_of(row.get("category_id")) for document in documents for row in document.rows.odd.values()}
    used |= {key for document in documents for key in np.unique(document.rows.boxes.category).tolist()}
    with_boxes = {name for d in documents for key, name in d.categories.items() if key in used}
    for split, document in files.items():
        parents = {parent for name, parent in document.headings.items() if parent != name}
        for name, parent in document.headings.items():  # Roboflow lists the project itself as category 0
            heads = name in parents and parent in ("none", name) and name not in with_boxes and name in ids
            if heads and len(ids) > 1:
                del ids[name]
                report.add(split, "class that heads others", name)
    taken: set[int] = set()
    numbers, highest = [], 0
    for key in ids.values():
        free = key if isinstance(key, int) and key not in taken else highest + 1
        taken.add(free)
        highest = max(highest, free)
        numbers.append(free)
    return Classes(tuple(ids), tuple(numbers))
