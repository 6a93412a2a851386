"""COCO files as tools write them: numbers as text, ids of their own, paths of other machines, marks and encodings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from detlab.data.datamodule import DetectionData
from detlab.data.formats.coco import coco
from detlab.errors import DataError
from tests.data.writing import counts, picture, read

AUTO = dict.fromkeys(("train", "val", "test"), "auto")
BOX = [[4, 4, 24, 14, "cat"]]


def data_of(root: Path, **options: Any) -> DetectionData:
    return coco(**({"root": str(root), "annotations": AUTO, "images": AUTO, "size": 40, "cache_dir": None} | options))


def document(**changes: Any) -> dict[str, Any]:
    """One image a.png with a cat at (4, 4, 20, 10); changes go to its row, and with a prefix to image or category."""
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 10], "area": 200, "iscrowd": 0}
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    category = {"id": 1, "name": "cat"}
    for key, value in changes.items():
        part, _, rest = key.partition("__")
        {"image": image, "category": category, "row": row}[part][rest] = value
    return {"images": [image], "annotations": [row], "categories": [category]}


def write(root: Path, content: Any, name: str = "train.json") -> Path:
    picture(root / "a.png")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


@pytest.mark.parametrize(
    "changes",
    [
        {"row__bbox": ["4", "4.0", " 20", "1e1"]},
        {"row__bbox": [4.0, 4.0, 20.0, 10.0]},
        {"row__image_id": 1.0, "row__category_id": "1"},
        {"image__id": "1", "category__id": 1.0},
        {"image__id": "1.0"},
        {"image__id": "a1b2", "row__image_id": "a1b2"},
        {"category__id": "cat-7", "row__category_id": "cat-7"},
        {"image__height": "40", "image__width": 60.0},
        {"image__height": None, "image__width": 0},
        {"row__id": None},
        {"row__area": "200"},
        {"category__name": "  cat "},
        *({"row__iscrowd": value} for value in ("0", 0.0, False, "false", "no", None, "")),
    ],
    ids=str,
)
def test_numbers_and_flags_mean_the_same_however_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = data_of(write(tmp_path, document(**changes)))
    assert read(data) == {"a.png": BOX}
    assert counts(data) == {}
    assert not data.records("train")[0].crowd.any()
    assert data.records("train")[0].area.tolist() == [200]


@pytest.mark.parametrize("value", ["1", 1, True, "true", "yes", "1.0", "Y"])
def test_crowds_however_written(tmp_path: Path, value: object) -> None:
    data = data_of(write(tmp_path, document(row__iscrowd=value)))
    assert counts(data) == {"crowd box": 1}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"row__bbox": ["4", "x", 20, 10]}, "malformed box"),
        ({"row__bbox": [True, 4, 20, 10]}, "malformed box"),
        ({"row__bbox": ["nan", 4, 20, 10]}, "malformed box"),
        ({"row__bbox": [4, 4, 20]}, "malformed box"),
        ({"row__bbox": {"x": 4}}, "malformed box"),
        ({"row__iscrowd": "perhaps"}, "unclear flag"),
        ({"row__image_id": True}, "annotation without image"),
        ({"row__category_id": 1.5}, "unknown class"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_counted(tmp_path: Path, changes: dict[str, Any], rule: str) -> None:
    assert counts(data_of(write(tmp_path, document(**changes))))[rule] == 1


def test_category_ids_belong_to_their_file(tmp_path: Path) -> None:
    """Train numbers 1 cat, 2 dog; val 1 dog, 2 cat, 3 cow."""
    categories = [[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]]
    categories.append([{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cow"}])
    for split, names in zip(("train", "val"), categories, strict=True):
        write(tmp_path, document() | {"categories": names}, f"{split}.json")
    data = data_of(tmp_path)
    assert read(data) == {"a.png": BOX}
    assert read(data, "val") == {"a.png": [[4, 4, 24, 14, "dog"]]}
    assert data.class_names == ("cat", "dog", "cow")
    assert data.category_ids == (1, 2, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([(1, "cat"), (1, "dog")], "'cat' and 'dog' have the same id 1"),
        ([(1, "cat"), ("1", "dog")], "'cat' and 'dog' have the same id 1"),
        ([(1, "cat"), (2, "cat")], "two categories are named 'cat', ids 1 and 2"),
        ([(1, "cat"), (2, " cat")], "two categories are named 'cat', ids 1 and 2"),
        ([(1, "cat"), (2, None)], "needs a name"),
        ([(1, "cat"), (None, "dog")], "needs a name, and a whole number or text as id"),
    ],
)
def test_two_names_for_an_id_and_two_ids_for_a_name(tmp_path: Path, names: list, message: str) -> None:
    categories = [{"id": i, "name": n} for i, n in names]
    with pytest.raises(DataError, match=message):
        data_of(write(tmp_path, document() | {"categories": categories})).setup()


def test_a_category_that_stands_twice_is_one(tmp_path: Path) -> None:
    data = data_of(write(tmp_path, document() | {"categories": [{"id": 1, "name": "cat"}] * 2}))
    assert read(data) == {"a.png": BOX}


def test_rows_that_repeat_are_dropped_and_ids_that_repeat_are_not(tmp_path: Path) -> None:
    content = document()
    row = content["annotations"][0]
    content["annotations"] = [row, row | {"id": 2}, row | {"bbox": [4, 4, 21, 10]}, row | {"bbox": ["4", 4.0, 20, 10]}]
    data = data_of(write(tmp_path, content))
    assert read(data) == {"a.png": [*BOX, [4, 4, 25, 14, "cat"]]}
    assert counts(data) == {"duplicate box": 2}


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-32"),
    ],
    ids=["utf-8 mark", "utf-16 mark", "utf-16-le", "utf-32"],
)
def test_marks_and_encodings(tmp_path: Path, encode: Any) -> None:
    content = document(category__name="Käfer 猫")
    data = data_of(write(tmp_path, encode(json.dumps(content, ensure_ascii=False))))
    assert read(data) == {"a.png": [[4, 4, 24, 14, "Käfer 猫"]]}
    assert counts(data) == {}


def test_a_file_in_windows_encoding_is_read_and_counted(tmp_path: Path) -> None:
    content = json.dumps(document(category__name="Käfer"), ensure_ascii=False).encode("latin-1")
    data = data_of(write(tmp_path, content))
    assert read(data) == {"a.png": [[4, 4, 24, 14, "Käfer"]]}
    assert counts(data) == {"text not in UTF-8": 1}


@pytest.mark.parametrize(
    ("name", "corrected"),
    [
        ("a.png", False),
        ("./a.png", False),
        (".\\a.png", False),
        ("sub/b c.png", False),
        ("sub\\b c.png", False),
        ("A.PNG", True),
        ("C:\\Users\\me\\set\\sub\\b c.png", True),
        ("/home/me/set/a.png", True),
        ("../../elsewhere/a.png", True),
        ("other/a.png", True),
        ("b%20c.png", True),
    ],
)
def test_image_names_of_other_machines(tmp_path: Path, name: str, corrected: bool) -> None:
    root = write(tmp_path, document(image__file_name=name))
    picture(root / "sub" / "b c.png")
    if name.startswith("b%"):
        picture(root / "b c.png")
    data = data_of(root)
    assert list(read(data).values()) == [BOX]
    assert counts(data) == ({"image at another path": 1} if corrected else {})


def test_images_outside_the_root_need_the_option(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "x.png")
    root = write(tmp_path / "root", document(image__file_name="x.png"))
    (root / "x.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    assert counts(data_of(root))["image outside the root"] == 1
    with pytest.raises(DataError, match=r"'image outside the root' \(1 in train.*data\.outside_root=true"):
        data_of(root).setup()
    assert read(data_of(root, outside_root=True)) == {"x.png": BOX}


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("annotations/instances_train2017.json", "train2017/a.png"),
        ("annotations/instances_train.json", "images/a.png"),
        ("annotations/instances_default.json", "images/a.png"),  # CVAT
        ("result.json", "images/a.png"),  # Label Studio
        ("train/_annotations.coco.json", "train/a.png"),  # Roboflow
        ("mine.json", "a.png"),
    ],
)
def test_the_usual_layouts_need_no_option(tmp_path: Path, file: str, image: str) -> None:
    root = tmp_path / "set"
    picture(root / image)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    named = "images\\a.png" if file == "result.json" else "a.png"
    (root / file).write_text(json.dumps(document(image__file_name=named)))
    data = data_of(root)
    assert read(data) == {"a.png": BOX}
    assert f"data.annotations.train={file}" in data.notes


def test_roboflow_lists_the_project_as_a_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    data = data_of(write(tmp_path, document() | {"categories": categories}))
    assert read(data) == {"a.png": BOX}
    assert data.class_names == ("cat",)
    assert counts(data) == {"class that heads others": 1}


def test_a_heading_that_has_boxes_is_a_class(tmp_path: Path) -> None:
    categories = [
        {"id": 1, "name": "cat", "supercategory": "none"},
        {"id": 2, "name": "kitten", "supercategory": "cat"},
    ]
    data = data_of(write(tmp_path, document() | {"categories": categories}))
    data.required = ()
    assert data.class_names == ("cat", "kitten")


def test_one_name_for_all_splits(tmp_path: Path) -> None:
    root = write(tmp_path, document(), "mine/labels.json")
    assert read(data_of(root, annotations="mine/labels.json", images=None)) == {"a.png": BOX}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [], "images": [], "annotations": [], "categories": []}', "names 'images' twice"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"", "not readable as json"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(write(tmp_path, content)).setup()


def test_deep_values_in_fields_do_not_fail(tmp_path: Path) -> None:
    text = json.dumps(document()).replace('"bbox": [4, 4, 20, 10]', '"bbox": ' + "[" * 900 + "]" * 900)
    assert counts(data_of(write(tmp_path, text.encode())))["malformed box"] == 1


def test_pipes_return_at_once(tmp_path: Path) -> None:
    root = write(tmp_path, document(image__file_name="pipe.png"))
    os.mkfifo(root / "pipe.png")
    data = data_of(root)
    assert counts(data)["unreadable image"] == 1
    assert "regular file" in str(data.report)
    (root / "train.json").unlink()
    os.mkfifo(root / "train.json")
    with pytest.raises(DataError, match="regular file"):
        data_of(root, annotations="train.json").setup()


def test_a_file_of_test_alone_is_not_train_s(tmp_path: Path) -> None:
    data = data_of(write(tmp_path, document(), "test.json"))
    assert (read(data), read(data, "test")) == ({}, {"a.png": BOX})


def test_two_files_of_one_id_are_dropped_since_their_boxes_cannot_be_told_apart(tmp_path: Path) -> None:
    content = document()
    content["images"] += [
        {"id": "01", "file_name": "b.png"},
        {"id": 2, "file_name": "c.png"},
        {"id": 2, "file_name": "./c.png"},
    ]
    content["annotations"].append(content["annotations"][0] | {"image_id": 2})
    root = write(tmp_path, content)
    for name in ("b.png", "c.png"):
        picture(root / name)
    data = data_of(root)
    assert read(data) == {"c.png": BOX}
    assert counts(data) == {"image id of two files": 2, "duplicate image id": 1}
    with pytest.raises(DataError, match=r"'image id of two files' \(2, such as id 1 \(a\.png\)"):
        data_of(root, on_error="raise").setup()


@pytest.mark.parametrize("names", [("a.png", "sub/a.png"), ("cam1/a.png", "cam2/a.png")])
def test_a_file_that_two_paths_end_in_is_not_taken_for_both(tmp_path: Path, names: tuple[str, str]) -> None:
    """Only a.png exists: it is the first row's own, or of two others nobody knows whose."""
    content = document(image__file_name=names[0])
    content["images"].append({"id": 2, "file_name": names[1]})
    content["annotations"].append(content["annotations"][0] | {"image_id": 2, "bbox": [1, 1, 9, 9]})
    data = data_of(write(tmp_path, content))
    own = names[0] == "a.png"
    assert read(data) == ({"a.png": BOX} if own else {})
    assert counts(data) == {"missing image": 1 if own else 2}
