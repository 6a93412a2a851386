"""A table of boxes as text: its separator, its columns by their titles, and what its four numbers of a box are."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detlab.data.audit import AuditReport, names, printable
from detlab.data.formats.source import SPLIT_NAMES, text_of
from detlab.data.places import Finder, followed
from detlab.data.values import number, words
from detlab.errors import DataError
from detlab.system.reading import ReadError, load_json

COLUMNS: dict[str, tuple[str, ...]] = {  # titles in small letters without _, - and blanks, the likeliest first
    "file": ("filename", "imagename", "imagepath", "filepath", "path", "file", "image", "img", "imageid"),
    "class": ("class", "label", "classname", "labelname", "category", "categoryname", "name"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "x1": ("xmin", "x1", "left", "bboxxmin", "bboxx1"),
    "y1": ("ymin", "y1", "top", "bboxymin", "bboxy1"),
    "x2": ("xmax", "x2", "right", "bboxxmax", "bboxx2"),
    "y2": ("ymax", "y2", "bottom", "bboxymax", "bboxy2"),
    "x": ("x", "bboxx"),
    "y": ("y", "bboxy"),
    "cx": ("xcenter", "xcentre", "cx", "centerx", "centrex"),
    "cy": ("ycenter", "ycentre", "cy", "centery", "centrey"),
    "w": ("w", "bboxw", "bboxwidth", "boxwidth"),
    "h": ("h", "bboxh", "bboxheight", "boxheight"),
    "split": ("split", "set", "subset"),
    "crowd": ("iscrowd", "crowd", "isgroupof"),
    "difficult": ("difficult", "isdifficult"),
}
CORNERS, SIDES, CENTRES = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h"), ("cx", "cy", "w", "h")
RETINANET = ("file", "x1", "y1", "x2", "y2", "class")  # keras-retinanet's order, which has no titles
AUTOML = {"split": 0, "file": 1, "class": 2, "x1": 3, "y1": 4, "x2": 7, "y2": 8}  # Google's, which has none either
VIA = ("filename", "regionshapeattributes", "regionattributes")  # VGG Image Annotator's titles
WORDS = {  # of a split column
    **{word: split for split, spellings in SPLIT_NAMES.items() for word in spellings},
    **{"training": "train", "validate": "val", "dev": "val", "testing": "test"},
}
OPEN = ("", "unassigned")  # words of a split column that leave the row to its file's split
LOST = "lost\0"  # the split of a row that has too few or too many cells; no cell's word
BLANK = ("", "nan", "null", "none", "na", "n/a", "<na>")  # cells without a value; pandas writes nan, R NA
SEPARATORS = ",;\t|"
TOLD = re.compile(rf'"?sep=([{SEPARATORS}])"?[{SEPARATORS}]*', re.IGNORECASE)  # Excel's first line
SHARE = 1.01  # largest coordinate that may be a share of an image; rounding exceeds 1

Row = dict[str, str]  # cells by the names of COLUMNS


class Table(NamedTuple):
    """The rows of a file."""

    name: str  # as the option gives it
    path: Path
    rows: list[Row]
    keys: tuple[str, str, str, str]  # CORNERS, SIDES or CENTRES
    shares: bool  # numbers are shares of the image, not px


def read_table(root: Path, name: str, split: str, report: AuditReport, *, outside: bool) -> Table:
    """The rows of a file below root, separated by commas, semicolons, tabs or bars.

    Raises:
        DataError: it is not there, no text, or lacks columns; names those it has.
    """
    path = followed(root / Path(name).expanduser())
    option = f"data.annotations.{split}={name}"
    if not Finder(root, [], outside=outside).allowed(path):
        raise DataError(f"{option} leaves data.root={root}; set data.outside_root=true if it is yours.")
    if not path.exists():
        raise DataError(f"{option} is not a file under data.root={root}; give its path.")
    try:
        lines = _lines(text_of(path, report, split).content)
        told = TOLD.fullmatch(lines[0].rstrip("\r\n")) if lines else None
        lines = lines[1:] if told else lines
        if not lines:
            raise ReadError("is empty")
        separator = told[1] if told else _separator(lines)
        cells = _cells(lines, separator)
    except (ReadError, csv.Error) as error:
        raise DataError(f"{option} {error}.") from error
    cells = _from_via(cells)
    places, below = _columns(cells, option)
    keys = next(k for k in (CORNERS, SIDES, CENTRES) if set(k) <= set(places))
    rows = [_row(row, places, keys, len(cells[0])) for row in below if any(map(str.strip, row))]
    if separator != ",":
        for row in rows:  # 12,5 beside semicolons
            row |= {key: row[key].replace(",", ".") for key in (*keys, "width", "height") if key in row}
    _split_again(rows)
    return Table(name, path, rows, keys, _are_shares(rows, keys, option))


def _lines(text: str) -> list[str]:
    """The lines that are not blank, with their ends; `str.splitlines` would also divide at characters within cells."""
    return [line for line in io.StringIO(text, newline="").readlines() if line.strip()]


def _separator(lines: list[str]) -> str:
    """The most frequent separator of the first line under which it has the columns of a box, else the most frequent.

    Without titles, decimal commas and those of a file's name may be as many as the separators.
    """
    likely = sorted(SEPARATORS, key=lines[0].count, reverse=True)
    for separator in likely:
        row = next(csv.reader(lines[:1], delimiter=separator, skipinitialspace=True))
        if _found(row) is not None:
            return separator
    return likely[0]


def _cells(lines: list[str], separator: str) -> list[list[str]]:
    """The cells of each row. A quoted cell may go on in later lines; a quote that no other closes takes none of them.

    Raises:
        csv.Error: a cell is too long.
    """
    options: dict[str, Any] = {"delimiter": separator, "skipinitialspace": True}
    odd = [i for i, line in enumerate(lines) if line.count('"') % 2]  # these open or close a cell of several lines
    if not odd:
        return list(csv.reader(lines, **options))
    found: list[list[str]] = []
    at, width, closing = 0, len(next(csv.reader(lines, **options))), dict(itertools.pairwise(odd))
    unclosed = set(odd)
    while at < len(lines):
        end = closing.get(at, at) + 1
        row = _one_row(lines[at:end], options)
        if end > at + 1 and (row is None or len(row) < width or any(cell.strip() for cell in row[width:])):
            end = at + 1
            row = _one_row(lines[at:end], options)
        if row is None:
            row = next(csv.reader([lines[at]], **options))
            row += ["no end of a quote"] * max(1, 1 + width - len(row)) if at in unclosed else []  # to be counted
        found.append(row)
        at = end
    return found


def _one_row(lines: list[str], options: dict[str, Any]) -> list[str] | None:
    """The cells of lines that are one row; None if they are not, or leave a quote open."""
    try:
        rows = list(csv.reader(lines, strict=True, **options))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _row(cells: list[str], places: Mapping[str, int], keys: tuple[str, ...], width: int) -> Row:
    """The cells by the names of COLUMNS; in a row that has not `width` of them the box is none, to be counted."""
    row = {key: cells[i].strip() if i < len(cells) else "" for key, i in places.items()}
    short = len(cells) < width and bool(row["class"]) and not has_box(row, keys)
    broken = short or any(cell.strip() for cell in cells[width:])
    if broken:
        row |= {"class": "", **dict.fromkeys(keys, ""), keys[0]: f"not {width} columns"}
    if "split" in places and (broken or places["split"] >= len(cells)):
        row["split"] = LOST
    return row


def _split_again(rows: list[Row]) -> None:
    """Give rows that lost their split that of the same image's other rows, else none, which is their file's."""
    if any(row.get("split") == LOST for row in rows):
        known = {row["file"]: row["split"] for row in rows if row["split"].lower() in WORDS}
        for row in (row for row in rows if row["split"] == LOST):
            row["split"] = known.get(row["file"], "")


def has_box(row: Mapping[str, str], keys: tuple[str, ...]) -> bool:
    """Whether any number of a box is there; a row without one names an image without boxes."""
    return any(row[key].lower() not in BLANK for key in keys)


def corners(row: Mapping[str, str], keys: tuple[str, ...]) -> list[float] | None:
    """A row's box as x1, y1, x2, y2 in the units of the table; None if a number is missing."""
    a, b, c, d = (number(row[key]) for key in keys)
    if a is None or b is None or c is None or d is None:
        return None
    if keys == CORNERS:
        return [a, b, c, d]
    return [a, b, a + c, b + d] if keys == SIDES else [a - c / 2, b - d / 2, a + c / 2, b + d / 2]


def split_of(row: Mapping[str, str], own: str, file: str) -> str:
    """The split of a row: that of its column, else that of its file.

    Raises:
        DataError: the column has another word.
    """
    word = row.get("split", "").lower()
    if word not in WORDS and word not in OPEN:
        raise DataError(
            f"{file} has a row of the split {words(word, 40)!r}, which is not known; write train, val or test."
        )
    return WORDS.get(word, own)


def _columns(cells: list[list[str]], option: str) -> tuple[dict[str, int], list[list[str]]]:
    """Place of each column, and the rows below the titles, without titles that are repeated (of tables joined as text).

    Raises:
        DataError: columns that are needed are not there.
    """
    found = _found(cells[0])
    if found is None:
        raise DataError(
            f"{option} has the columns {names(map(printable, cells[0]), 12)}; it needs the titles filename, class, and "
            f"xmin, ymin, xmax, ymax (or x, y, w, h), in any order."
        )
    places, titled = found
    return places, [row for row in cells[1:] if row[: len(cells[0])] != cells[0]] if titled else cells


def _found(first: list[str]) -> tuple[dict[str, int], bool] | None:
    """Place of each column, and whether the first row is one of titles; None if columns are missing."""
    plain = [_plain(title) for title in first]
    found = {}
    for key, titles in COLUMNS.items():
        title = next((t for t in titles if t in plain), None)
        if title is not None:
            found[key] = plain.index(title)
    if not {"x2", "y2"} & set(found):
        found |= {short: found.pop(key) for short, key in (("x", "x1"), ("y", "y1")) if key in found}  # left, top
        if not {"w", "h"} & set(found) and {"width", "height"} <= set(found):
            found |= {"w": found.pop("width"), "h": found.pop("height")}  # beside x and y they are the box's
            image = [(key, t) for key in ("width", "height") for t in COLUMNS[key][1:] if t in plain]
            found |= {key: plain.index(title) for key, title in image}
    if {"file", "class"} <= set(found) and any(set(keys) <= set(found) for keys in (CORNERS, SIDES, CENTRES)):
        return found, True
    if len(first) > AUTOML["y2"] and first[0].strip().lower() in (*WORDS, *OPEN):
        return dict(AUTOML), False
    if len(first) == len(RETINANET) and all(_is_number(cell.replace(",", ".")) for cell in first[1:5]):
        return {key: i for i, key in enumerate(RETINANET)}, False
    return None


def _from_via(cells: list[list[str]]) -> list[list[str]]:
    """Rows of VGG Image Annotator, which writes shapes and attributes as JSON, with columns of their own; others as is.

    Polygons and other shapes become their bounding boxes.
    """
    plain = [_plain(title) for title in cells[0]]
    if not set(VIA) <= set(plain):
        return cells
    file, shape, attributes = (plain.index(title) for title in VIA)
    rows = [["filename", "x", "y", "w", "h", "class"]]
    for row in (row for row in cells[1:] if row):
        cell = (*row, *[""] * len(plain))
        sides = _sides(_object(cell[shape]))
        if len(row) != len(plain) or (not any(map(str, sides)) and cell[shape].strip() not in ("", "{}")):
            sides = [words(cell[shape], 40) or "no shape", "", "", ""]  # to be counted
        rows.append([cell[file], *(words(side, 40) for side in sides), _name(_object(cell[attributes]))])
    return rows


def _sides(shape: dict[str, Any]) -> list[Any]:
    """x, y, w, h of a shape of VIA; blanks for none."""
    points = [[v for v in map(number, _list(shape.get(f"all_points_{axis}"))) if v is not None] for axis in "xy"]
    if all(points):
        low, high = [min(values) for values in points], [max(values) for values in points]
        return [*low, high[0] - low[0], high[1] - low[1]]
    across, down = number(shape.get("rx", shape.get("r"))), number(shape.get("ry", shape.get("r")))
    cx, cy = number(shape.get("cx")), number(shape.get("cy"))
    if across is not None and down is not None and cx is not None and cy is not None:  # a circle or an ellipse
        return [cx - across, cy - down, 2 * across, 2 * down]
    return [shape.get(key, "") for key in ("x", "y", "width", "height")]


def _name(attributes: dict[str, Any]) -> str:
    """The class of a region of VIA: its attribute called class or the like, else its first."""
    given = next((a for title in COLUMNS["class"] for key, a in attributes.items() if _plain(key) == title), None)
    value = next(iter(attributes.values()), "") if given is None else given
    if isinstance(value, dict):  # check boxes
        value = next((key for key, chosen in value.items() if chosen), "")
    return words(value, 200).strip()


def _object(text: str) -> dict[str, Any]:
    try:
        value = load_json(text)
    except ReadError:
        return {}
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(title: str) -> str:
    return "".join(c for c in title.lower() if c.isalnum())


def _is_number(cell: str) -> bool:
    return number(cell) is not None or cell.strip().lower() in BLANK


def _are_shares(rows: list[Row], keys: tuple[str, ...], option: str) -> bool:
    """Whether the numbers are shares of the image: as pixels, most boxes would be smaller than one.

    Raises:
        DataError: they are, and x, y may be a box's corner or its centre.
    """
    boxes = [[v for key in keys if (v := number(row[key])) is not None] for row in rows if has_box(row, keys)]
    boxes = [box for box in boxes if len(box) == len(keys)]
    small = [box for box in boxes if max(box) <= SHARE]
    if 2 * len(small) <= len(boxes) or all(v.is_integer() for box in small for v in box):
        return False
    if keys == SIDES:
        raise DataError(
            f"{option} has x, y, w, h as shares of the image, where x, y may be a corner or the centre; call them "
            f"x_center and y_center if they are the centre, or write corners in pixels."
        )
    return True
