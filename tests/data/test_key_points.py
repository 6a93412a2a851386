"""Key points of two numbers without kpt_shape: rows that could as well be polygons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.test_yolo_kinds import data_of, make, with_yaml
from tests.data.writing import counts, read


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("0 0.5 0.5 0.3 0.3 0.4 0.4 0 0", 1),  # the second point was not seen
        ("0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3", 0),  # a square: one of its corners lies outside the box
        ("0 0.5 0.5 0.3 0.3 0.4 0.4 0.6 0.6 0.5 0.6", 0),  # another number of points
    ],
)
def test_key_points_of_two_numbers_without_kpt_shape_are_said(tmp_path: Path, last: str, found: int) -> None:
    """They are read as polygons, whose boxes are others; only the whole data set tells the two apart."""
    rows = [f"0 0.5 0.5 0.2 0.2 0.4{i} 0.45 0.55 0.5{i}" for i in range(1, 5)]
    data = data_of(make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"), text="\n".join([*rows, last])))
    assert len(read(data)["a.jpg"]) == 5
    assert counts(data).get("polygons like key points", 0) == found
