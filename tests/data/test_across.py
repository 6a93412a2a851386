"""Images that two splits share, and classes whose names look like one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detlab.data.across import EDGE, name_notes, names_alike, same_content
from detlab.data.formats.csv_boxes import csv_boxes


def noise(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(path)


def told(
    root: Path, rows: str, val_fraction: float = 0.0, **options: Any
) -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """Examples of findings by split and rule, and the notes."""
    (root / "annotations.csv").write_text("filename,xmin,ymin,xmax,ymax,class,split\n" + rows)
    given: dict[str, Any] = {"size": 32, "cache_dir": None, "val_fraction": val_fraction, **options}
    data = csv_boxes(root=str(root), annotations="annotations.csv", **given)
    data.setup()
    return {key: finding.examples for key, finding in data.report.findings.items()}, data.notes


def test_a_copied_image_of_another_name_is_told(tmp_path: Path) -> None:
    for seed in range(4):
        noise(tmp_path / f"{seed}.png", seed)
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    shutil.copy(tmp_path / "2.png", tmp_path / "again.png")
    images = {"0": "train", "1": "train", "2": "val", "again": "test", "copy": "test", "3": "test"}
    rows = "".join(f"{name}.png,2,2,20,20,cat,{split}\n" for name, split in images.items())
    found, notes = told(tmp_path, rows)
    assert found == {}
    end = "; results on test say less about new images."
    assert set(notes) == {
        f"1 image of test repeats one of train byte by byte (copy.png = 0.png){end}",
        f"1 image of test repeats one of val byte by byte (again.png = 2.png){end}",
    }


@pytest.mark.parametrize(
    ("options", "notes"),
    [({}, 1), ({"limit": {"train": 1}}, 0), ({"limit": {"val": 1}}, 1), ({"same_images": True}, 0)],
)
def test_copies_count_among_the_images_that_are_used(tmp_path: Path, options: dict[str, Any], notes: int) -> None:
    for seed in range(2):
        noise(tmp_path / f"{seed}.png", seed)
    shutil.copy(tmp_path / "1.png", tmp_path / "copy.png")
    rows = "".join(f"{name}.png,2,2,20,20,cat,{s}\n" for name, s in (("0", "train"), ("1", "train"), ("copy", "val")))
    rows += "1.png,2,2,20,20,cat,test\n"
    found, said = told(tmp_path, rows, **options)
    assert sum(note.startswith("1 image of val repeats one of train") for note in said) == notes
    assert (("test", "image also in train") in found) == bool(notes)


def test_names_in_notes_are_printable(tmp_path: Path) -> None:
    noise(tmp_path / "0.png", 0)
    shutil.copy(tmp_path / "0.png", tmp_path / "\x1b[31m.png")
    _, notes = told(tmp_path, "\x1b[31m.png,2,2,20,20,Cat\x1b,train\n0.png,2,2,20,20,cat\x1b,val\n")
    assert len(notes) == 2
    assert all(note.isprintable() for note in notes)


def test_a_damaged_picture_in_two_splits_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    shutil.copy(tmp_path / "a", tmp_path / "b")
    assert set(same_content([("train", str(tmp_path / "a")), ("val", str(tmp_path / "b"))])) == {
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    }


def test_one_file_in_two_splits_is_counted(tmp_path: Path) -> None:
    for seed in range(3):
        noise(tmp_path / f"{seed}.png", seed)
    images = [("0", "train"), ("1", "val"), ("0", "val"), ("1", "test"), ("0", "test"), ("2", "test")]
    rows = "".join(f"{name}.png,2,2,20,20,cat,{split}\n" for name, split in images)
    assert told(tmp_path, rows) == (
        {
            ("val", "image also in train"): ["0.png"],
            ("test", "image also in val"): ["1.png"],
            ("test", "image also in train"): ["0.png"],
        },
        [],
    )


def test_copies_that_a_drawn_split_tears_apart_are_told(tmp_path: Path) -> None:
    noise(tmp_path / "0.png", 0)
    for number in range(1, 6):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,2,2,20,20,cat,train\n" for number in range(6))
    _, notes = told(tmp_path, rows, val_fraction=0.34)
    assert [note.partition(" (")[0] for note in notes] == ["2 images of val repeat one of train byte by byte"]


@pytest.mark.parametrize(("mode", "color", "copied"), [("RGB", (9, 9, 9), False), ("L", 7, False), ("RGB", None, True)])
def test_pictures_of_one_colour_are_no_copies(tmp_path: Path, mode: str, color: object, copied: bool) -> None:
    image = Image.new(mode, (30, 20), color)  # type: ignore[arg-type]
    if copied:
        image.putpixel((3, 4), (1, 2, 3))
    image.save(tmp_path / "0.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
    _, notes = told(tmp_path, "0.png,2,2,20,20,cat,train\n1.png,2,2,20,20,cat,val\n")
    assert len(notes) == copied


def test_files_of_equal_ends_are_compared_as_a_whole(tmp_path: Path) -> None:
    ends = bytes(EDGE)
    files = []
    for name, middle in (("a", b"same"), ("b", b"same"), ("c", b"diff")):
        (tmp_path / name).write_bytes(ends + middle + ends)
        files.append(("train" if name == "a" else "test", str(tmp_path / name)))
    assert same_content(files) == {str(tmp_path / n): str(tmp_path / "a") for n in "ab"}
    os.truncate(tmp_path / "b", 10)
    assert same_content(files) == {}


@pytest.mark.parametrize("content", [b"", b"x", bytes(EDGE + 1)])
def test_small_files_and_files_that_are_gone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    files = [("train", str(tmp_path / "a")), ("val", str(tmp_path / "b")), ("val", str(tmp_path / "gone"))]
    assert set(same_content(files)) == {str(tmp_path / "a"), str(tmp_path / "b")}


def test_links_to_one_file_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    (tmp_path / "soft").symlink_to(tmp_path / "a")
    read: list[Path] = []
    monkeypatch.setattr("detlab.data.across.read_bytes", lambda path: read.append(path) or path.read_bytes())
    files = [("train", str(tmp_path / "a")), ("val", str(tmp_path / "hard")), ("test", str(tmp_path / "soft"))]
    assert set(same_content(files).values()) == {str(tmp_path / "a")}
    assert read == [tmp_path / "a"]


def test_copies_within_one_split_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for name in "ab":
        (tmp_path / name).write_bytes(b"same")
        files.append(("train", str(tmp_path / name)))
    monkeypatch.setattr("detlab.data.across.open_regular", None)
    assert same_content(files) == {}


def test_names_that_look_like_one() -> None:
    assert names_alike(["Cat", "dog", "cat", "traffic light", "Traffic_Light", "-", "_"]) == [
        ["Cat", "cat"],
        ["traffic light", "Traffic_Light"],
    ]


def test_letters_that_look_alike_however_they_are_composed() -> None:
    assert names_alike(["caf\u00e9", "cafe\u0301", "cafe"]) == [["caf\u00e9", "cafe\u0301"]]
    (note,) = name_notes(["c" + "_" * i for i in range(200)])
    assert len(note) < 200


def test_classes_of_alike_names_are_told(tmp_path: Path) -> None:
    for seed in range(2):
        noise(tmp_path / f"{seed}.png", seed)
    rows = "0.png,2,2,20,20,Cat,train\n0.png,2,2,9,9,cat,train\n1.png,2,2,20,20,cat,val\n"
    assert told(tmp_path, rows) == (
        {},
        ["Classes with names alike are kept apart: Cat and cat; if they mean the same, rename them in the labels."],
    )


@pytest.mark.parametrize("name", ["nan", "None", "NULL", "<NA>", "n/a"])
def test_a_class_named_like_a_missing_value_is_told(tmp_path: Path, name: str) -> None:
    """A table that pandas or a script wrote has such a text where the class was not known."""
    for seed in range(2):
        noise(tmp_path / f"{seed}.png", seed)
    rows = f"0.png,2,2,20,20,cat,train\n0.png,2,2,9,9,{name},train\n1.png,2,2,20,20,cat,val\n"
    found, (note,) = told(tmp_path, rows)
    assert found == {}
    assert note.startswith(f"A class is called {name}, as programs write a missing value;")
    assert told(tmp_path, rows, classes=["cat"])[1] == []
