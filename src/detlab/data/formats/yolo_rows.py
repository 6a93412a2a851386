"""One row of a YOLO label file: a box, a polygon, or a box with key points."""

from __future__ import annotations

from typing import NamedTuple

from detlab.data.values import number, whole

BEYOND = 0.5  # share of the image that a polygon may reach beyond its border; rejects key points (visibility 2)


class Row(NamedTuple):
    """A box."""

    category: int  # as the file numbers it
    corners: tuple[float, float, float, float]  # x1, y1, x2, y2 as shares of the image


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
    return Row(category, (min(xs), min(ys), max(xs), max(ys)))
