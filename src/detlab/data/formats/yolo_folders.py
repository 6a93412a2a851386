"""Layout of a YOLO data set on disk: its data.yaml, or the folders and lists of tools that write none."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detlab.data.audit import AuditReport, names, printable
from detlab.data.formats.source import SPLIT_NAMES, SPLITS, left_the_root, placed, text_of
from detlab.data.formats.yolo_rows import Row, parse_row
from detlab.data.images import list_images
from detlab.data.places import OUTSIDE, Finder, ends_of, files_below, followed, only_named, real_folder, slashed
from detlab.data.values import whole, words
from detlab.errors import DataError
from detlab.system.reading import ReadError, load_yaml

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "predefined_classes.txt")
EMPTY = {"", "null", "~", "none"}  # entries of a data.yaml that mean "not given"


class Picture(NamedTuple):
    """One image of a split."""

    name: str  # below the root, for reports
    path: Path
    label: Path | None  # None: no label file
    searched: list[Path]  # folders in which it was searched


class Folders(NamedTuple):
    """A whole data set on disk."""

    file: Path  # the file with the class names
    names: dict[int, str]  # by class number
    key_points: tuple[int, int] | None
    splits: dict[str, list[Picture]]
    notes: tuple[str, ...]


def read_folders(
    root: str | None,
    *,
    images: str | None,
    labels: str | None,
    names: list[str] | None,
    outside: bool,
    wanted: Collection[str],
    report: AuditReport,
) -> Folders:
    """The data set of a data.yaml, or of a folder without one.

    Raises:
        DataError: there are no yaml and no names, or the yaml is broken or names folders that do not exist.
    """
    top, file = _top(root)
    if file is None:
        return _without_yaml(top, images, labels, names, outside, wanted, report)
    document = _document(file, report)
    class_names = dict(enumerate(names)) if names else _names(document, file)
    shape = _key_points(document, file)
    bases = _bases(top, document, outside, file)
    splits: dict[str, list[Picture]] = {}
    walks, notes = [], list[str]()
    for split in (s for s in SPLITS if s in wanted):
        keys = [key for key in SPLIT_NAMES[split] if not _empty(document.get(key))]
        if keys and split == "test" and len(wanted) > 1 and only_named(bases, document[keys[0]]):
            notes.append(f"{file.name} names {keys[0]}: {document[keys[0]]}, which is not there; no test split is read")
        elif keys:
            walk = _Walk(bases, _folder_option(top, labels, "data.labels", outside), outside, split, report)
            splits[split] = walk.pictures(document[keys[0]], f"{file.name}: {keys[0]}")
            walks.append(walk)
    _count_unused(walks, splits, shape, report)
    if not splits:
        raise DataError(f"{file} has no {' or '.join(repr(s) for s in wanted)} entry.")
    return Folders(file, class_names, shape, splits, tuple(notes))


def _top(root: str | None) -> tuple[Path, Path | None]:
    """The folder, and the data.yaml in it, if there is one."""
    if root is None or not root.strip():
        raise DataError("data.root is not set; give your data.yaml, data.root=PATH/data.yaml.")
    path = Path(root).expanduser().absolute()
    try:
        if path.is_dir():
            found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
            return path, next((p for p in found if p.stem == "data"), found[0] if found else None)
        if path.exists():
            return path.parent, path
    except (OSError, ValueError):
        pass
    raise DataError(f"data.root={root} is neither a data.yaml nor a folder with one.")


def _document(file: Path, report: AuditReport) -> dict[str, Any]:
    try:
        document = load_yaml(text_of(file, report, "train").content, as_written=True)
    except ReadError as error:
        raise DataError(f"data.root: {file} {error}.") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} holds no keys; a YOLO data.yaml has train, val and names.")
    return document


def _names(document: dict[str, Any], file: Path) -> dict[int, str]:
    """Class names by their number, exactly as written."""
    found, count = document.get("names"), whole(document.get("nc"))
    if found is None and count is not None and 0 < count < 100_000:
        return {i: f"class_{i}" for i in range(count)}
    if isinstance(found, str) and found.strip() not in EMPTY:
        path = followed(file.parent / slashed(found))
        if not Finder(file.parent, []).allowed(path) or not path.is_file():
            raise DataError(f"{file}: 'names' is neither a list, nor a map, nor a file of its folder.")
        return dict(enumerate(_name_lines(path, AuditReport())))
    pairs = list(found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ()))
    if found is None:
        raise DataError(f"{file} has no 'names'; a YOLO data.yaml names its classes.")
    keys = [whole(key) for key, _ in pairs]
    if not pairs or None in keys or not all(isinstance(name, str) for _, name in pairs):
        raise DataError(f"{file}: 'names' must be a list, or a map from whole numbers to names, and not empty.")
    if len(set(keys)) < len(keys):
        raise DataError(f"{file}: 'names' gives one number to two classes.")
    if count is not None and count != len(pairs):
        raise DataError(f"{file}: 'nc' is {count}, but 'names' has {len(pairs)}; correct the one that is wrong.")
    return dict(sorted((key, name) for key, (_, name) in zip(keys, pairs, strict=True) if key is not None))


def _key_points(document: dict[str, Any], file: Path) -> tuple[int, int] | None:
    """kpt_shape: the number of key points of a row, and of values per key point (2 or 3); None if not given."""
    given = document.get("kpt_shape")
    if _empty(given):
        return None
    numbers = [whole(v) for v in given] if isinstance(given, list) else []
    match numbers:
        case [int(count), int(each)] if 0 < count < 10_000 and each in (2, 3):
            return count, each
    raise DataError(f"{file}: kpt_shape must be [COUNT, 2] or [COUNT, 3], not {words(given)}.")


def _bases(top: Path, document: dict[str, Any], outside: bool, file: Path) -> list[Path]:
    """Folders that entries are relative to: the yaml's `path` if it exists, and the yaml's own folder."""
    given = document.get("path")
    if _empty(given) or not isinstance(given, str):
        return [top]
    path = real_folder(top / Path(slashed(given)).expanduser())
    if path is None:  # written for another machine or for the parent folder
        return [top]
    if outside or Finder(top, []).allowed(path):
        return list(dict.fromkeys([path, top]))
    if any(_resolves(top, document[k]) for s in SPLITS for k in SPLIT_NAMES[s] if not _empty(document.get(k))):
        return [top]
    raise DataError(f"{file}: its 'path' {printable(given[:200])} leaves its folder; {OUTSIDE}.")


def _resolves(top: Path, entry: object) -> bool:
    return isinstance(entry, str) and followed(top / slashed(entry)).exists()


class _Walk:
    """The pictures of a split and their label files."""

    def __init__(self, bases: list[Path], labels: Path | None, outside: bool, split: str, report: AuditReport) -> None:
        self.bases, self.labels, self.outside = bases, labels, outside
        self.split, self.report = split, report
        self.label_folders: list[Path] = []  # of the images of whole folders

    def pictures(self, entry: object, option: str) -> list[Picture]:
        """Image files of a split: a folder, a text file of paths, or a list of either."""
        if isinstance(entry, list):
            return [picture for part in entry for picture in self.pictures(part, option)]
        if not isinstance(entry, str):
            raise DataError(f"{option}={words(entry)} is neither a folder nor a list of images.")
        base, written, real = self._place(entry, option)
        return list(self._of_folder(base, written, real) if real.is_dir() else self._of_list(base, real))

    def _place(self, entry: str, option: str) -> tuple[Path, Path, Path]:
        """Find an entry: its base, the path as written below the base, and the path with links resolved."""
        plain = slashed(entry)
        ways = [plain]
        while plain.startswith("../"):  # Roboflow writes its yamls for a subfolder
            plain = plain[3:]
            ways.append(plain)
        left = False
        for way in reversed(ways):
            for base in self.bases:
                path = base / way
                real = real_folder(path) or followed(path)
                try:
                    there = real.exists()
                except (OSError, ValueError):
                    there = False
                if there and (self.outside or Finder(base, []).allowed(real)):
                    return base, path, real
                left = left or there
        parts = [part for part in Path(plain).parts if part not in ("/", "..")]
        for end in ends_of(parts[1:]):  # written for another machine
            for base in self.bases:
                near = real_folder(base / end)
                if near is not None and (self.outside or Finder(base, []).allowed(near)) and not left:
                    self.report.add(self.split, "image at another path", f"{entry} -> {end}/")
                    return base, base / end, near
        if left or os.path.isabs(plain) or "../" in entry:
            raise left_the_root(option, entry, self.bases[0])
        raise DataError(
            f"{option}={printable(entry[:200])} is neither a folder nor a list of images under {self.bases[0]}."
        )

    def _of_folder(self, base: Path, place: Path, real: Path) -> Iterator[Picture]:
        listing = list_images(real, None if self.outside else base)
        for path in listing.skipped:
            rule = "image outside the root" if path.is_dir() else "file that is no image"
            self.report.add(self.split, rule, str(path.relative_to(real)))
        finder = Finder(base, [], outside=self.outside)
        inner = place.relative_to(base) if place.is_relative_to(base) else place
        self.label_folders += [followed(p.parent) for p in self._label_files(base, inner / "image")]
        for path in listing.images:
            written = place / path.relative_to(real)
            if finder.allowed(path):
                yield self._picture(base, written, path)
            else:
                self.report.add(self.split, "image outside the root", str(path.relative_to(real)))

    def _of_list(self, base: Path, listing: Path) -> Iterator[Picture]:
        finder = Finder(base, [base, listing.parent], outside=self.outside)
        for line in _lines(listing, self.report, self.split):
            path = placed(finder.find(line), line, self.split, self.report)
            if path is not None:
                yield self._picture(base, path, path)

    def _picture(self, base: Path, written: Path, path: Path) -> Picture:
        inner = written.relative_to(base) if written.is_relative_to(base) else written
        places = list(self._label_files(base, inner))
        finder = Finder(base, [], outside=self.outside)
        label = next((p for p in map(followed, places) if p.exists() and finder.allowed(p)), None)
        folders = [p.parent for p in places]
        return Picture(inner.as_posix().removeprefix("/"), path, label, folders)

    def _label_files(self, base: Path, inner: Path) -> Iterator[Path]:
        """Possible paths of an image's label file, the likeliest first; `inner` is the image's path below base."""
        name = inner.with_suffix(".txt")
        parts = list(name.parts)
        if self.labels is not None:
            after = max((i + 1 for i, part in enumerate(parts[:-1]) if part == "images"), default=0)
            yield self.labels.joinpath(*parts[after:])
            yield from (self.labels.joinpath(*parts[i:]) for i in range(len(parts)))
            return
        for i in reversed([i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]):
            yield base.joinpath(*parts[:i], "labels", *parts[i + 1 :])
        yield base / name
        yield base.joinpath("labels", *parts)
        yield base / name.parent.parent / "labels" / name.name


def _count_unused(
    walks: Iterable[_Walk],
    splits: Mapping[str, list[Picture]],
    key_points: tuple[int, int] | None,
    report: AuditReport,
) -> None:
    """Count label files with boxes to which no image of any split belongs, in folders that hold labels of a split."""
    used = {p.label.resolve() for pictures in splits.values() for p in pictures if p.label is not None}
    folders = {folder: walk.split for walk in reversed(list(walks)) for folder in walk.label_folders}
    for folder in sorted(folders, key=lambda f: -len(f.parts)):  # the inner ones first: splits may share the outer ones
        below = folder.resolve()
        for path in files_below(folder, folder) if any(label.is_relative_to(below) for label in used) else ():
            if path.suffix.lower() == ".txt" and path.resolve() not in used and _has_boxes(path, key_points):
                report.add(folders[folder], "label without image", str(path.relative_to(folder)))
                used.add(path.resolve())


def _has_boxes(path: Path, key_points: tuple[int, int] | None) -> bool:
    """Whether a text file is a label file: lists and notes hold no rows of boxes."""
    try:
        lines = text_of(path, AuditReport(), "train").content.splitlines()
    except ReadError:
        return False
    return any(isinstance(parse_row(line, key_points), Row) for line in lines)


def _without_yaml(
    top: Path,
    images: str | None,
    labels: str | None,
    given_names: list[str] | None,
    outside: bool,
    wanted: Collection[str],
    report: AuditReport,
) -> Folders:
    """A folder of LabelImg, Label Studio or CVAT: classes.txt or obj.names, images, labels, and optionally lists."""
    file = next((p for name in NAME_FILES for p in (top / name, top / "labels" / name) if p.is_file()), None)
    if file is None:
        file = next((p for p in files_below(top, None if outside else top) if p.name in NAME_FILES), None)
    if file is None and not given_names:
        raise DataError(
            f"data.root={top} holds no data.yaml and no classes.txt; give the yaml, data.root=PATH/data.yaml, or the "
            f"class names in their order, data.names=[a,b]."
        )
    class_names = dict(enumerate(given_names or _name_lines(file, report)))  # type: ignore[arg-type]
    picture_folder = _folder_option(top, images, "data.images", outside)
    label_folder = _folder_option(top, labels, "data.labels", outside)
    entries: dict[str, str] = {}
    for split in (s for s in SPLITS if s in wanted):
        for name in SPLIT_NAMES[split]:
            usual = (f"{name}.txt", f"images/{name}", f"{name}/images", name)
            found = next((e for e in usual if (top / e).exists()), None) if picture_folder is None else None
            if found and split not in entries:
                entries[split] = found
    if "train" in wanted and "train" not in entries:
        place = picture_folder or real_folder(top / "images") or top
        entries = {"train": str(place.relative_to(top)) if place.is_relative_to(top) else str(place)}
    walks = {s: _Walk([top], label_folder, outside, s, report) for s in entries}
    splits = {s: walks[s].pictures(e, f"data.root: {e}") for s, e in entries.items()}
    _count_unused(walks.values(), splits, None, report)
    shown = ", ".join(f"{s}: {e}" for s, e in entries.items())
    return Folders(file or top, class_names, None, splits, (f"no data.yaml; {shown}",))


def _folder_option(top: Path, given: str | None, option: str, outside: bool) -> Path | None:
    if given is None:
        return None
    path = real_folder(top / Path(given).expanduser())
    if path is None:
        have = sorted(p.name for p in top.iterdir() if p.is_dir())
        raise DataError(f"{option}={given} is not a folder of {top}" + (f"; it has {names(have)}." if have else "."))
    if not outside and not Finder(top, []).allowed(path):
        raise left_the_root(option, given, top)
    return path


def _lines(path: Path, report: AuditReport, split: str = "train") -> list[str]:
    """The lines of a text file that are not blank."""
    return [line for line in _name_lines(path, report, split) if line]


def _name_lines(path: Path, report: AuditReport, split: str = "train") -> list[str]:
    """The lines of a text file up to the last that is not blank: a blank one between others takes a class's number."""
    try:
        text = text_of(path, report, split).content
    except ReadError as error:
        raise DataError(f"{path} {error}.") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _empty(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and value.strip().lower() in EMPTY)
