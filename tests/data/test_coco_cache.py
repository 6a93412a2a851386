"""The rows of a COCO file come back from the cache, as long as the file is the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detlab.data.formats import coco_cache
from detlab.data.formats.coco_cache import COLUMNS, kept_rows
from detlab.data.formats.coco_rows import Rows, read_rows

CONTENT: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "\ud800é.jpg", "height": 4, "width": 5, "date": 1}, {"id": "x", "license": 3}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0.5, 1, 2], "area": 1.25, "iscrowd": 1},
        {"id": "2", "image_id": 1, "category_id": 3, "bbox": None},
        {"id": 3, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 3, "name": "a"}],
}


def same(one: Rows | None, other: Rows | None) -> bool:
    assert one is not None
    assert other is not None
    equal = [np.array_equal(getattr(one.boxes, k), getattr(other.boxes, k), equal_nan=True) for k in COLUMNS]
    return all(equal) and (one.images, one.categories, one.odd) == (other.images, other.categories, other.odd)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(coco_cache, "LEAST", 0)
    (tmp_path / "x.json").write_text(json.dumps(CONTENT))
    return tmp_path / "x.json"


def test_rows_come_back(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_rows(file, "x.json")
    assert same(kept_rows(file, "x.json", tmp_path / "cache"), whole)
    monkeypatch.setattr(coco_cache, "read_rows", lambda path, name: pytest.fail("it was read again"))
    assert same(kept_rows(file, "x.json", tmp_path / "cache"), whole)


def test_a_changed_file_and_a_damaged_entry_are_read_again(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = kept_rows(file, "x.json", cache)
    found = file.stat()
    file.write_text(json.dumps(CONTENT | {"categories": [{"id": 3, "name": "b"}]}))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    second = kept_rows(file, "x.json", cache)
    assert second is not None
    assert second.categories == [{"id": 3, "name": "b"}]
    assert not same(first, second)
    (entry,) = cache.iterdir()
    for damaged in (b"", b"PK", entry.read_bytes()[:400]):
        entry.write_bytes(damaged)
        assert same(kept_rows(file, "x.json", cache), second)


def test_small_files_and_files_without_a_cache_leave_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(kept_rows(file, "x.json", None), read_rows(file, "x.json"))
    monkeypatch.setattr(coco_cache, "LEAST", 10**6)
    kept_rows(file, "x.json", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
