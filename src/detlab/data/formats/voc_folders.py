"""Layout of a VOC data set on disk: the annotations of each split, and the folders of its images."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from detlab.data.audit import AuditReport, names
from detlab.data.formats.source import AUTO, SPLIT_NAMES, SPLITS, left_the_root, text_of
from detlab.data.images import suffixes
from detlab.data.places import Finder, files_below, real_folder, slashed
from detlab.errors import DataError
from detlab.system.reading import ReadError

LISTS = "ImageSets/Main"
IMAGES = ("JPEGImages", "images", "Images", "image", "imgs", "photos")
ANNOTATIONS = ("Annotations", "annotations", "xml", "xmls", "labels", "Labels")
WHOLE_LISTS = ("train", "Train", "trainval", "default")  # train's list with auto: the first that exists


class Layout(NamedTuple):
    """One split on disk."""

    stems: list[str]  # names of its annotations without .xml, as paths below `annotations`
    annotations: Path
    images: list[Path]  # folders, in the order in which they are searched
    note: str = ""  # tells the user what `auto` chose


def layouts(
    root: Path,
    sets: Mapping[str, str | None],
    images: str | None,
    annotations: str | None,
    *,
    wanted: Collection[str],
    outside: bool,
    report: AuditReport,
) -> dict[str, Layout]:
    """The splits: by the lists that `sets` names, else by folders called train, valid, test, else one train split.

    Raises:
        DataError: a folder or a list that an option names does not exist, or there are no annotations.
    """
    xmls = _folder(root, annotations, "data.annotations", ANNOTATIONS, outside, holding=".xml")
    pictures = _folder(root, images, "data.images", IMAGES, outside)
    places = [pictures] if images not in (AUTO, None) else [pictures, xmls]
    found: dict[str, Layout] = {}
    for split in (s for s in SPLITS if s in wanted and sets.get(s)):
        listing = _list_file(root, str(sets[split]), split)
        if listing is not None:
            stems = _stems(listing, xmls, split, report)
            note = f"data.sets.{split}={listing.stem}" if sets[split] == AUTO else ""
            found[split] = Layout(stems, xmls, places, note)
    if found:
        return found
    if not any(sets.get(s) for s in SPLITS):
        raise DataError("data.sets names no list; give data.sets.train=train, a file of ImageSets/Main.")
    found = _by_folders(root, wanted) if annotations in (AUTO, None) and images in (AUTO, None) else {}
    if found:
        return found
    stems = [str(p.relative_to(xmls))[:-4] for p in files_below(xmls) if p.suffix.lower() == ".xml"]
    if not stems or "train" not in wanted:
        lists = sorted(p.stem for p in (root / LISTS).glob("*.txt"))
        raise DataError(
            f"data.root={root} has "
            + (f"the lists {names(lists)}, none of them for {', '.join(wanted)}; " if lists else "no annotations; ")
            + "give data.annotations=FOLDER with the XML files, or data.sets.train=LIST of ImageSets/Main."
        )
    _count_unannotated(places, stems, report)
    by_split = _by_first_folder(stems)
    if by_split:
        note = f"splits by the folders of {xmls.name}/"
        return {s: Layout(rows, xmls, places, note) for s, rows in by_split.items() if s in wanted}
    return {"train": Layout(stems, xmls, places, f"no lists: all {len(stems)} annotations of {xmls.name}/ are train's")}


def _folder(
    root: Path, given: str | None, option: str, usual: tuple[str, ...], outside: bool, holding: str = ""
) -> Path:
    """The folder that an option names, or the first usual one (with `holding` files in it), or the root."""
    if given in (AUTO, None):
        places = [p for p in (real_folder(root / name) for name in usual) if p is not None]
        if holding:
            places = [p for p in places if any(f.suffix.lower() == holding for f in files_below(p))]
        return next((p for p in places if outside or Finder(root, []).allowed(p)), root)
    path = real_folder(root / Path(str(given)).expanduser())
    if path is None:
        have = sorted(p.name for p in root.iterdir() if p.is_dir())
        raise DataError(f"{option}={given} is not a folder of {root}" + (f"; it has {names(have)}." if have else "."))
    if not outside and not Finder(root, []).allowed(path):
        raise left_the_root(option, str(given), root)
    return path


def _list_file(root: Path, name: str, split: str) -> Path | None:
    """The list of a split; None if it is auto and none of the usual ones exists."""
    if name == AUTO:
        usual = WHOLE_LISTS if split == "train" else SPLIT_NAMES[split]
        places = [root / LISTS / f"{n}.txt" for n in usual]
        places += [root / f"{n}.txt" for n in SPLIT_NAMES[split]]
        return next((p for p in places if p.is_file()), None)
    path = root / LISTS / f"{name}.txt"
    if not Finder(root, []).allowed(path) or not path.exists():
        have = sorted(p.stem for p in (root / LISTS).glob("*.txt"))
        raise DataError(
            f"data.sets.{split}={name} has no list {LISTS}/{name}.txt in {root}; "
            + (f"it has {', '.join(have[:8])}." if have else "set it to null, or write the list.")
        )
    return path


def _stems(path: Path, xmls: Path, split: str, report: AuditReport) -> list[str]:
    """The stems in a list; drops a column of -1, 0 or 1 and extensions, keeps folders."""
    try:
        text = text_of(path, report, split).content
    except ReadError as error:
        raise DataError(f"The list {path} {error}.") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with_column = [re.fullmatch(r"(.*\S)\s+(-1|0|1|\+1)", line) for line in lines]
    if all(with_column) and not any((xmls / f"{line}.xml").is_file() for line in lines):
        lines = [match[1] for match in with_column if match]
    return [_stem(line) for line in lines]


def _stem(line: str) -> str:
    """A list's entry without its extension; of a line with an image and its XML file, the XML file."""
    pair = re.fullmatch(r"(\S+)\s+(\S+\.xml)", line, re.IGNORECASE)
    name = slashed(pair[2] if pair else line)
    start, extension = os.path.splitext(name)
    return start if extension.lower() == ".xml" or extension.lower() in suffixes() else name


def _by_folders(root: Path, wanted: Collection[str]) -> dict[str, Layout]:
    """Splits by folders, as Roboflow writes them; empty if train is wanted and has none."""
    found = {}
    for split in (s for s in SPLITS if s in wanted):
        for name in SPLIT_NAMES[split]:
            place = real_folder(root / name)
            stems = [str(p.relative_to(place))[:-4] for p in files_below(place) if p.suffix == ".xml"] if place else []
            if place and stems and split not in found:
                found[split] = Layout(stems, place, [place, root / "images" / name], f"{split}: folder {name}/")
    return found if "train" in found or "train" not in wanted else {}


def _by_first_folder(stems: list[str]) -> dict[str, list[str]]:
    """Annotations by the first folder of their path, if every one lies in a folder named like a split."""
    split_of = {word: split for split, words in SPLIT_NAMES.items() for word in words}
    firsts = [Path(stem).parts[0] if len(Path(stem).parts) > 1 else "" for stem in stems]
    if not all(first in split_of for first in firsts) or "train" not in firsts:
        return {}
    found: dict[str, list[str]] = {}
    for first, stem in zip(firsts, stems, strict=True):
        found.setdefault(split_of[first], []).append(stem)
    return found


def _count_unannotated(places: list[Path], stems: list[str], report: AuditReport) -> None:
    """Count images without an annotation."""
    known = {Path(stem).name.casefold() for stem in stems}
    for path in {p for place in places for p in files_below(place)}:
        if path.suffix.lower() in suffixes() and path.stem.casefold() not in known:
            report.add("train", "missing annotation", f"{path.name} has no XML file")
