"""JSON read piece by piece gives what json gives, whatever the size of the pieces, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detlab.system import json_stream
from detlab.system.json_stream import NotStreamedError, stream_object

CONTENT: dict[str, Any] = {
    "info": {"a": [1, -2.5e3, None, True], "ü": '日本 " \\ \n'},
    "rows": [{"id": i, "text": "é" * i, "at": [i / 3, {}]} for i in range(7)],
    "none": [],
    "last": 12345,
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in stream_object(path, ("rows", "none"), lambda count: None):
        found[key] = [*found[key], *value] if key in found else value
    return found


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_equal_to_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    monkeypatch.setattr(json_stream, "ROWS", 2)
    for ascii_only in (True, False):
        file = tmp_path / "x.json"
        text = json.dumps(CONTENT, indent=indent, ensure_ascii=ascii_only)
        file.write_text(f" {text}\n", encoding="utf-8")
        assert read(file) == CONTENT


def test_rows_come_in_blocks_and_bytes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "ROWS", 3)
    file, counts = tmp_path / "x.json", []
    file.write_text(json.dumps(CONTENT))
    pairs = list(stream_object(file, ("rows", "none"), counts.append))
    sizes = [(key, len(value)) for key, value in pairs if isinstance(value, list)]
    assert sizes == [("rows", 6), ("rows", 1), ("none", 0)]  # all rows but the last of a text are read at once
    assert sum(counts) == file.stat().st_size
    monkeypatch.setattr(json_stream, "BLOCK", 1)
    pairs = list(stream_object(file, ("rows", "none"), counts.append))
    sizes = [(key, len(value)) for key, value in pairs if isinstance(value, list)]
    assert sizes == [("rows", 3), ("rows", 3), ("rows", 1), ("none", 0)]


NESTED = [
    [{"a": "}, {"}, {"b": '"}, {"'}, {"c": 1}],
    [{"a": [{}, {}]}, {"b": [{"x": 1}, {"y": [{}, {"z": "}"}]}]}],
    [[{}, {}], [{}, {}], {}],
    [1, {}, {}, "}, {", {}],
    [{"a": 1}, 2],
    [{"a": [[{}, {}], [{}, {}]]}] * 5,
]


@pytest.mark.parametrize("rows", NESTED, ids=str)
@pytest.mark.parametrize("block", [1, 5, 16, 1 << 20])
def test_objects_within_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], block: int) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    for separators in ((", ", ": "), (",", ":"), (" ,\n ", ":\t")):
        (tmp_path / "x.json").write_text(json.dumps({"rows": rows, "none": rows}, separators=separators))
        assert read(tmp_path / "x.json") == {"rows": rows, "none": rows}


def test_a_part_that_is_no_list_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of its rows would read the rest of the text."""
    tried: list[bool] = []
    several = json_stream._Stream.several

    def counted(self: Any) -> list[Any]:
        tried.append(self.fresh)
        return several(self)

    monkeypatch.setattr(json_stream._Stream, "several", counted)
    rows = [*({"n": i} for i in range(50)), {"a": [{}, {}]}]
    (tmp_path / "x.json").write_text(json.dumps({"rows": rows}))
    assert read(tmp_path / "x.json") == {"rows": rows}
    assert (len(tried), sum(tried)) == (51, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"rows": [{"a": 1, "a": 2}]}',
        '{"rows": [1, 2',
        '{"rows": [1 2]}',
        '{"rows": [1,]}',
        '{"a": 1} 2',
        '{"a": 1',
        "{1: 1}",
        "[]",
        "",
        '{"a": "\xff"}',
        '{"a": ' + "[" * 100_000,
    ],
)
def test_all_else_is_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotStreamedError):
        read(tmp_path / "x.json")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotStreamedError):
        read(tmp_path)
