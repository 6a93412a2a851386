"""Layout of a VOC data set on disk: the annotations of each split, and the folders of its images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
SPLIT_OF = {word: split for split, words in SPLIT_NAMES.items() for word in words}
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
    top = None if outside else root
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
    found = _by_folders(root, wanted, top, report) if annotations in (AUTO, None) and images in (AUTO, None) else {}
    if found:
        return found
    stems = _annotated(xmls, top)
    if not stems or "train" not in wanted:
        lists = sorted(p.stem for p in (root / LISTS).glob("*.txt"))
        raise DataError(
            f"data.root={root} has "
            + (f"the lists {names(lists)}, none of them for {', '.join(wanted)}; " if lists else "no annotations; ")
            + "give data.annotations=FOLDER with the XML files, or data.sets.train=LIST of ImageSets/Main."
        )
    pictured = _below(places, top)
    by_split = _by_first_folder(stems)
    if by_split:
        for split in SPLITS:
            own = {p: inner for p, inner in pictured.items() if SPLIT_OF.get(inner.parts[0], "train") == split}
            _count_unannotated(own, by_split.get(split, []), split, report)
        note = f"splits by the folders of {xmls.name}/"
        return {s: Layout(rows, xmls, places, note) for s, rows in by_split.items() if s in wanted}
    _count_unannotated(pictured, stems, "train", report)
    return {"train": Layout(stems, xmls, places, f"no lists: all {len(stems)} annotations of {xmls.name}/ are train's")}


def _folder(
    root: Path, given: str | None, option: str, usual: tuple[str, ...], outside: bool, holding: str = ""
) -> Path:
    """The folder that an option names, or the first usual one (with `holding` files in it), or the root."""
    if given in (AUTO, None):
        places = [p for p in (real_folder(root / name) for name in usual) if p is not None]
        if holding:
            top = None if outside else root
            places = [p for p in places if any(f.suffix.lower() == holding for f in files_below(p, top))]
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
    finder = Finder(xmls, [])
    if all(with_column) and not any(finder.find(f"{line}.xml").there for line in lines):
        lines = [match[1] for match in with_column if match]
    return [_stem(line) for line in lines]


def _stem(line: str) -> str:
    """A list's entry without its extension; of a line with an image and its XML file, the XML file."""
    pair = re.fullmatch(r"(\S+)\s+(\S+\.xml)", line, re.IGNORECASE)
    is_pair = pair is not None and os.path.splitext(pair[1])[1].lower() in suffixes()  # else a name with a space
    name = slashed(pair[2] if pair and is_pair else line)
    start, extension = os.path.splitext(name)
    return start if extension.lower() == ".xml" or extension.lower() in suffixes() else name


def _by_folders(root: Path, wanted: Collection[str], top: Path | None, report: AuditReport) -> dict[str, Layout]:
    """Splits by folders, as Roboflow writes them; empty if train is wanted and has none."""
    found = {}
    for split in (s for s in SPLITS if s in wanted):
        for name in SPLIT_NAMES[split]:
            place = real_folder(root / name)
            stems = _annotated(place, top) if place else []
            if place and stems and split not in found:
                found[split] = Layout(stems, place, [place, root / "images" / name], f"{split}: folder {name}/")
    if "train" in wanted and "train" not in found:
        return {}
    for split, layout in found.items():
        _count_unannotated(_below(layout.images, top), layout.stems, split, report)
    return found


def _annotated(place: Path, top: Path | None) -> list[str]:
    """The XML files below a folder, without their extension; links leave `top` only if it is None."""
    return [str(p.relative_to(place))[:-4] for p in files_below(place, top) if p.suffix.lower() == ".xml"]


def _by_first_folder(stems: list[str]) -> dict[str, list[str]]:
    """Annotations by the first folder of their path, if every one lies in a folder named like a split."""
    firsts = [Path(stem).parts[0] if len(Path(stem).parts) > 1 else "" for stem in stems]
    if not all(first in SPLIT_OF for first in firsts) or "train" not in firsts:
        return {}
    found: dict[str, list[str]] = {}
    for first, stem in zip(firsts, stems, strict=True):
        found.setdefault(SPLIT_OF[first], []).append(stem)
    return found


def _below(places: Sequence[Path], top: Path | None) -> dict[Path, Path]:
    """Every file below some folders, with its path in the first of them that holds it."""
    return {path: path.relative_to(place) for place in reversed(places) for path in files_below(place, top)}


def _count_unannotated(paths: Mapping[Path, Path], stems: list[str], split: str, report: AuditReport) -> None:
    """Count images without an annotation: none at their own path, and fewer of their name than images have it."""
    images = {p: inner for p, inner in paths.items() if p.suffix.lower() in suffixes()}
    annotated = {stem.casefold() for stem in stems}
    names_left = Counter(Path(stem).name.casefold() for stem in stems)
    without = []
    for path, inner in sorted(images.items()):
        if inner.with_suffix("").as_posix().casefold() in annotated:
            names_left[path.stem.casefold()] -= 1
        else:
            without.append(path)
    for path in without:
        names_left[path.stem.casefold()] -= 1
        if names_left[path.stem.casefold()] < 0:
            report.add(split, "missing annotation", f"{path.name} has no XML file")
