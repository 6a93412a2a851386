"""One row of a YOLO label file: a box, a polygon, or a box with key points."""

from __future__ import annotations

from typing import NamedTuple

from detlab.data.values import number, whole

SLACK = 1e-3  # share of the image; tools round to a few digits
FEWEST = 5  # rows from which on it is unlikely that polygons look like key points by chance
BEYOND = 0.5  # share of the image that a polygon may reach beyond its border; rejects key points (visibility 2)


class Row(NamedTuple):
    """A box."""

    category: int  # as the file numbers it
    corners: tuple[float, float, float, float]  # x1, y1, x2, y2 as shares of the image
    columns: int = 5  # of the row; more than 5 without kpt_shape: a polygon
    like_points: bool = False  # a polygon that could as well be a box with key points of two numbers in it


def parse_row(line: str, key_points: tuple[int, int] | None) -> Row | str | None:
    """A row; a text that says what is wrong, if it cannot be used; None for a blank line.

    Args:
        line: the line of the file.
        key_points: kpt_shape of the data.yaml: key points per row, and numbers per key point (2 or 3).
    """
    fields = line.split()
    if not fields:
        return None
    if len(fields) < 5:
        return f"has {len(fields)} columns, not 5"
    category = whole(fields[0])
    values = [number(field) for field in fields[1:]]
    if category is None:
        return f"begins with {fields[0][:20]!r}, not with the number of a class"
    if any(value is None for value in values):
        return "holds something else than numbers"
    shares = [value for value in values if value is not None]
    if key_points is not None and len(shares) != 4:
        wanted = 4 + key_points[0] * key_points[1]
        if len(shares) != wanted:
            return f"has {len(fields)} columns, not the {1 + wanted} of kpt_shape {list(key_points)}"
        shares = shares[:4]
    if len(shares) == 4:
        cx, cy, w, h = shares
        return Row(category, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    if len(shares) % 2 or len(shares) < 6:
        return f"has {len(fields)} columns: neither 5 of a box, nor those of a polygon"
    if min(shares) < -BEYOND or max(shares) > 1 + BEYOND:
        return "has coordinates far outside the image; for key points, write kpt_shape: [COUNT, 3] into the data.yaml"
    xs, ys = shares[0::2], shares[1::2]
    return Row(category, (min(xs), min(ys), max(xs), max(ys)), len(fields), _like_points(shares))


def _like_points(shares: list[float]) -> bool:
    """Whether the first four numbers are a box cx, cy, w, h inside the image that holds all later points.

    Points that a tool could not see are written as 0, 0.
    """
    cx, cy, w, h = shares[:4]
    points = [(x, y) for x, y in zip(shares[4::2], shares[5::2], strict=True) if (x, y) != (0, 0)]
    held = all(abs(x - cx) <= w / 2 + SLACK and abs(y - cy) <= h / 2 + SLACK for x, y in points)
    whole_box = min(cx - w / 2, cy - h / 2) >= -SLACK and max(cx + w / 2, cy + h / 2) <= 1 + SLACK
    return held and whole_box and w > 0 and h > 0


class PointWatch:
    """Looks for key points of two numbers in a data set without kpt_shape, which are read as polygons.

    Key points have the same number of columns in every row and lie in their boxes; among polygons of several objects,
    one at least does not.
    """

    def __init__(self) -> None:
        self.columns: set[int] = set()
        self.fits = True
        self.rows: dict[str, tuple[int, str]] = {}  # {split: (number of rows, the first of them)}

    def see(self, row: Row, split: str, where: str) -> None:
        """Look at one more row."""
        if row.columns > 5 and self.fits:
            self.columns.add(row.columns)
            self.fits = row.like_points and len(self.columns) == 1
            count, first = self.rows.get(split, (0, where))
            self.rows[split] = count + 1, first

    def found(self) -> dict[str, str]:
        """{split: what was found}; empty if the rows are polygons."""
        enough = self.fits and sum(count for count, _ in self.rows.values()) >= FEWEST
        return {split: f"{count} rows, first {first}" for split, (count, first) in self.rows.items() if enough}
