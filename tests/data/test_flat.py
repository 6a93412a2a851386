"""Flat arrays give back the records that they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detlab.data.flat import Records, Texts
from detlab.data.records import Record, record

ITEMS = [
    record(id=7, name="a/ä", path=Path("/top/a/ä"), size=(4, 5), objects=[{"box": [0, 1, 2, 3.25], "label": 2}]),
    record(id=2, name="b", path=None, size=(6, 7), objects=[]),
    record(
        id=9,
        name="c\udcff.jpg",
        path=Path("/c\udcff.jpg"),
        size=(4, 5),
        objects=[{"box": [1, 1, 2, 2], "label": i, "crowd": i, "difficult": 1 - i, "area": 0.1} for i in range(2)],
    ),
]


def values(item: Record) -> list[object]:
    arrays = [getattr(item, name) for name in ("boxes", "labels", "area", "crowd", "difficult")]
    return [item.id, item.name, item.path, item.size, item.rotate, *((a.dtype, a.tolist()) for a in arrays)]


def test_records_come_back() -> None:
    flat = Records.of(ITEMS)
    assert [values(item) for item in flat] == [values(item) for item in ITEMS]
    assert values(flat[-1]) == values(ITEMS[-1])
    assert Records.of(flat) is flat
    assert list(Records.of([])) == []
    with pytest.raises(IndexError):
        flat[3]


def test_rows_are_taken_in_any_order_and_twice() -> None:
    flat = Records.of(ITEMS)
    assert [values(item) for item in flat.take(np.array([2, 0, 2]))] == [values(ITEMS[i]) for i in (2, 0, 2)]
    assert [values(item) for item in flat[1:]] == [values(item) for item in ITEMS[1:]]
    assert len(flat[:0]) == 0
    assert flat.shapes() == [(4, 5), (6, 7)]


def test_boxes_are_left_out() -> None:
    kept = Records.of(ITEMS).keep_boxes(np.array([False, True, False]))
    assert [item.labels.tolist() for item in kept] == [[], [], [0]]
    assert [item.id for item in kept] == [7, 2, 9]


def test_texts_with_any_characters() -> None:
    texts = ["", "a\0b", "日本", "\udcff", ""]
    stored = Texts.of(texts)
    assert list(stored) == texts == [stored[i] for i in range(len(stored))]
