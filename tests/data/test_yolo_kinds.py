"""YOLO data sets of Roboflow, Ultralytics, CVAT, LabelImg and Label Studio: yamls, folders, lists, rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from detlab.data.datamodule import DetectionData
from detlab.data.formats.yolo import yolo
from detlab.errors import DataError
from tests.data.writing import counts, picture, read

ROW = "0 0.5 0.5 0.5 0.5\n"
BOX = [[15, 10, 45, 30, "cat"]]
YAML = "train: images/train\nval: images/train\nnames: [cat]\n"


def data_of(root: Path, **options: Any) -> DetectionData:
    return yolo(**({"root": str(root), "size": 40, "cache_dir": None} | options))


def make(root: Path, image: str = "images/train/a.jpg", label: str = "labels/train/a.txt", text: Any = ROW) -> Path:
    picture(root / image)
    path = root / label
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def with_yaml(root: Path, text: str | bytes = YAML, name: str = "data.yaml") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize(
    ("image", "label", "entry"),
    [
        ("images/train/a.jpg", "labels/train/a.txt", "images/train"),
        ("train/images/a.jpg", "train/labels/a.txt", "train/images"),
        ("train/images/a.jpg", "train/labels/a.txt", "../train/images"),  # Roboflow
        ("images/sub/deep/a.jpg", "labels/sub/deep/a.txt", "images"),
        ("images/images/a.jpg", "images/labels/a.txt", "images"),
        ("images/images/a.jpg", "labels/images/a.txt", "images"),
        ("images/v2/images/a.jpg", "images/v2/labels/a.txt", "images/v2"),
        ("train/a.jpg", "train/a.txt", "train"),  # beside, as darknet has them
        ("train/a.jpg", "labels/train/a.txt", "train"),
        ("images/train/a.jpg", "labels/train/a.txt", ".\\images\\train"),
        ("images/train/a.jpg", "labels/train/a.txt", "/content/datasets/x/images/train"),
        ("images/train/a.b.jpg", "labels/train/a.b.txt", "images/train"),
        ("my images/a b.jpg", "my images/a b.txt", "my images"),
    ],
)
def test_labels_are_looked_up_below_the_root(tmp_path: Path, image: str, label: str, entry: str) -> None:
    root = make(with_yaml(tmp_path / "images" / "set", f"train: '{entry}'\nnames: [cat]\n"), image, label)
    assert read(data_of(root)) == {Path(image).name: BOX}


@pytest.mark.parametrize("as_text", [False, True], ids=["link", "checkout without links"])
@pytest.mark.parametrize("outside", [False, True])
def test_images_as_a_link(tmp_path: Path, as_text: bool, outside: bool) -> None:
    root = with_yaml(tmp_path / "root")
    target = "../photos" if outside else "photos"
    picture(root / target / "train" / "a.jpg")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text(ROW)
    if as_text:
        (root / "images").write_text(target)
    else:
        (root / "images").symlink_to(target)
    if outside:
        with pytest.raises(DataError, match=r"leaves .*data\.outside_root=true"):
            data_of(root).setup()
    assert read(data_of(root, outside_root=outside)) == {"a.jpg": BOX}


def test_one_image_that_is_a_link_outside(tmp_path: Path) -> None:
    root = make(with_yaml(tmp_path / "root"))
    picture(tmp_path / "b.jpg")
    (root / "images/train/b.jpg").symlink_to(tmp_path / "b.jpg")
    assert counts(data_of(root))["image outside the root"] == 2  # in train and val
    assert set(read(data_of(root, outside_root=True))) == {"a.jpg", "b.jpg"}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = make(with_yaml(tmp_path))
    (root / "images/train/loop").symlink_to(root / "images")
    assert read(data_of(root)) == {"a.jpg": BOX}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("[cat, dog]", ("cat", "dog")),
        ("{0: cat, 1: dog}", ("cat", "dog")),
        ("{1: dog, 0: cat}", ("cat", "dog")),
        ("\n  0: yes\n  1: no", ("yes", "no")),
        ("[on, off]", ("on", "off")),
        ("[0, 010]", ("0", "010")),
        ("[1e3, null]", ("1e3", "null")),
        ("['a: b', 1.50]", ("a: b", "1.50")),
    ],
)
def test_names_stay_as_they_are_written(tmp_path: Path, names: str, found: tuple[str, ...]) -> None:
    data = data_of(make(with_yaml(tmp_path, f"train: images/train\nnames: {names}\n")))
    data.required = ()
    assert data.class_names == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\nnames: [cat, cat]\n", "names two classes 'cat'"),
        ("train: images/train\nnames: {0: cat, 0: dog}\n", "names '0' twice"),
        ("train: images/train\nnames: {0: cat, 00: dog}\n", "one number to two classes"),
        ("train: images/train\nnc: 3\nnames: [cat, dog]\n", "'nc' is 3, but 'names' has 2"),
        ("train: images/train\n", "has no 'names'"),
        ("train: images/train\nnames: [[a]]\n", "'names' must be a list"),
        ("train: &a images/train\nval: *a\nnames: [cat]\n", "uses an alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [cat]\n", "uses an alias"),
        ("names: &n [*n]\ntrain: x\n", "uses an alias"),
        ("names: " + "[" * 5000 + "\n", "nested too deep|nesting depth"),
        ("names: [cat\n", "not readable YAML"),
        ("train: nowhere\nnames: [cat]\n", "data.yaml: train=nowhere is neither a folder nor a list"),
        ("train: ../../nowhere\nnames: [cat]\n", "leaves .*data.outside_root=true"),
        ("names: [cat]\n", "has no 'train' or 'val' or 'test' entry"),
        ("train: images/train\nkpt_shape: [17]\nnames: [cat]\n", "kpt_shape must be"),
        ("train: images/train\nkpt_shape: [17, 4]\nnames: [cat]\n", "kpt_shape must be"),
        ("[1, 2]\n", "holds no keys"),
    ],
)
def test_yamls_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(make(with_yaml(tmp_path / "root", text))).setup()


@pytest.mark.parametrize(
    "text",
    [
        "path: .\n" + YAML,
        "path: ../datasets/coco8\n" + YAML,
        "path: coco8  # dataset root dir\n" + YAML,
        "path: /content/datasets/coco8\n" + YAML,
        "path: C:\\data\\coco8\n" + YAML,
        "path: null\ntest:\n" + YAML,
        "path: ~\ntest: null\ndownload: |\n  rm -rf\n" + YAML,
        "train: [images/train]\nval: images/train\nnames: [cat]\n",
        "train: images/train\nvalidation: images/train\nnames: {0: cat}\n",
        b"\xef\xbb\xbf" + YAML.encode(),
        YAML.encode("utf-16"),
        YAML.replace("\n", "\r\n"),
    ],
)
def test_paths_of_the_yaml(tmp_path: Path, text: str | bytes) -> None:
    data = data_of(make(with_yaml(tmp_path / "root", text)))
    assert read(data) == read(data, "val") == {"a.jpg": BOX}


def test_a_path_to_a_folder_below(tmp_path: Path) -> None:
    root = with_yaml(tmp_path, "path: coco8\n" + YAML, "coco8.yaml")
    make(root / "coco8")
    assert read(data_of(root)) == {"a.jpg": BOX}
    assert read(data_of(root / "coco8.yaml")) == {"a.jpg": BOX}


@pytest.mark.parametrize(
    "line",
    ["./images/train/a.jpg", "images/train/a.jpg", "data/images/train/a.jpg", "images\\train\\a.jpg", "ABSOLUTE"],
)
def test_lists_of_images(tmp_path: Path, line: str) -> None:
    root = make(with_yaml(tmp_path, "train: train.txt\nnames: [cat]\n"))
    line = line.replace("ABSOLUTE", str(root / "images/train/a.jpg"))
    (root / "train.txt").write_text(f"\ufeff{line}\r\n\r\n{line}\r\n")
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert counts(data)["image listed twice"] == 1


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0 0.5 0.5 0.5 0.5", [15, 10, 45, 30]),
        ("0.0\t.5  5e-1 0.5 0.5 ", [15, 10, 45, 30]),
        ("\ufeff0 0.5 0.5 0.5 0.5", [15, 10, 45, 30]),
        ("0 0.25 0.25 0.75 0.25 0.75 0.75", [15, 10, 45, 30]),  # a polygon
        ("0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75", [15, 10, 45, 30]),  # an oriented box
    ],
)
def test_rows(tmp_path: Path, row: str, box: list[float]) -> None:
    data = data_of(make(with_yaml(tmp_path), text=f"{row}\r\n\r\n"))
    assert read(data) == {"a.jpg": [[*box, "cat"]]}


@pytest.mark.parametrize(
    "row",
    [
        "0 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5 0.9",
        "0 nan 0.5 0.5 0.5",
        "0 inf 0.5 0.5 0.5",
        "cat 0.5 0.5 0.5 0.5",
        "0.5 0.5 0.5 0.5 0.5",
        "0,0.5,0.5,0.5,0.5",
        "0 0,5 0,5 0,5 0,5",
        "0 0.5 0.5 0.2 0.2 0.45 0.45 2 0.55 0.45 2 0.45 0.55 1 0.55 0.55 0",  # key points without kpt_shape
    ],
)
def test_rows_that_are_none(tmp_path: Path, row: str) -> None:
    data = data_of(make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"), text=ROW + row))
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"malformed box": 1}


@pytest.mark.parametrize(
    ("shape", "points"), [("[2, 3]", "0.1 0.1 2 0.9 0.9 0"), ("[2, 2]", "0.1 0.1 0.9 0.9"), ("[1, 2]", "0 0")]
)
def test_key_points_leave_the_box_alone(tmp_path: Path, shape: str, points: str) -> None:
    text = f"{ROW.strip()} {points}\n0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.5 0.5 0.1\n"
    data = data_of(make(with_yaml(tmp_path, f"train: images/train\nkpt_shape: {shape}\nnames: [cat]\n"), text=text))
    assert read(data) == {"a.jpg": [*BOX, [27, 18, 33, 22, "cat"]]}
    assert counts(data) == {"malformed box": 1}


def test_repeated_rows_are_counted_and_one_kept(tmp_path: Path) -> None:
    data = data_of(make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"), text=ROW * 3 + "0 .50 .5 .5 .5\n"))
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"duplicate box": 3}


def test_missing_label_files_are_counted_and_named(tmp_path: Path) -> None:
    root = make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"))
    picture(root / "images/train/b.jpg")
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX, "b.jpg": []}
    assert counts(data) == {"missing label file": 1, "image without boxes": 1}
    assert "images/train/b.jpg" in str(data.report)


def test_no_label_file_at_all_is_refused(tmp_path: Path) -> None:
    root = make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"), label="labelTxt/train/a.txt")
    with pytest.raises(DataError, match=r"None of the 1 images of train .*labels/train.*data\.labels=FOLDER"):
        data_of(root).setup()
    assert read(data_of(root, labels="labelTxt")) == {"a.jpg": BOX}
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/a.txt").touch()  # an image without boxes, as YOLO writes it
    assert counts(data_of(root)) == {"image without boxes": 1}


def test_images_of_other_formats_and_files_that_are_none(tmp_path: Path) -> None:
    root = with_yaml(tmp_path, "train: images\nnames: [cat]\n")
    for name in ("a.jfif", "b.ppm", "c.gif", "d.jpe", "e.jp2", "f.TIFF", "g.bmp"):
        kind = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000"}.get(name[2:])
        make(root, f"images/{name}", f"labels/{name[0]}.txt")
        picture(root / "images" / name, **({"format": kind} if kind else {}))
    picture(root / "images" / "odd.jpg_large", format="JPEG")
    make(root, "images/a.jfif", "labels/odd.txt")
    for name in ("photo.heic", "clip.mp4"):
        (root / "images" / name).write_bytes(b"\0" * 100)
    for name in ("a.txt", "notes.md", ".hidden.jpg", "Thumbs.db", "classes.txt"):
        (root / "images" / name).write_bytes(b"x")
    (root / "images" / "__MACOSX").mkdir()
    (root / "images" / "__MACOSX" / "z.jpg").write_bytes(b"x")
    data = data_of(root, val_fraction=0.0)
    assert len(read(data)) == 8
    assert all(boxes == BOX for boxes in read(data).values())
    assert counts(data) == {"file that is no image": 2}
    assert "photo.heic" in str(data.report)


def test_a_pipe_among_images_and_labels(tmp_path: Path) -> None:
    root = make(with_yaml(tmp_path, "train: images/train\nnames: [cat]\n"))
    os.mkfifo(root / "images/train/pipe.jpg")
    picture(root / "images/train/b.jpg")
    os.mkfifo(root / "labels/train/b.txt")
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"file that is no image": 1, "broken annotation": 1}
    (root / "data.yaml").unlink()
    os.mkfifo(root / "data.yaml")
    with pytest.raises(DataError, match="regular file"):
        data_of(root).setup()


@pytest.mark.parametrize(
    ("names", "image", "label"),
    [
        ("classes.txt", "images/a.jpg", "labels/a.txt"),  # Label Studio
        ("classes.txt", "a.jpg", "a.txt"),  # LabelImg
        ("obj.names", "obj_train_data/a.jpg", "obj_train_data/a.txt"),  # CVAT
        ("train/_darknet.labels", "train/a.jpg", "train/a.txt"),  # Roboflow for darknet
        ("labels/classes.txt", "images/a.jpg", "labels/a.txt"),
    ],
)
def test_folders_without_a_yaml(tmp_path: Path, names: str, image: str, label: str) -> None:
    root = make(tmp_path, image, label)
    (root / names).write_text("cat\r\ndog\r\n")
    if names == "obj.names":
        (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\n")
        (root / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert data.class_names == ("cat", "dog")


def test_names_as_an_option(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.jpg", "labels/a.txt")
    with pytest.raises(DataError, match=r"no data.yaml and no classes.txt.*data.names=\[a,b\]"):
        data_of(root).setup()
    assert read(data_of(root, names=["cat"], images="images", labels="labels")) == {"a.jpg": BOX}


@pytest.mark.parametrize("layout", [("images/train", "labels/train"), ("train/images", "train/labels"), ("set", "set")])
def test_labels_whose_image_is_gone_are_counted(tmp_path: Path, layout: tuple[str, str]) -> None:
    images, labels = layout
    root = make(with_yaml(tmp_path, f"train: {images}\nnames: [cat]\n"), f"{images}/a.jpg", f"{labels}/a.txt")
    for name, text in (("b", ROW), ("sub/c", ROW), ("empty", ""), ("classes", "cat\n"), ("notes", "1. A note\n")):
        (root / labels / "sub").mkdir(exist_ok=True)
        (root / labels / f"{name}.txt").write_text(text)
    data = data_of(root)
    assert read(data) == {"a.jpg": BOX}
    assert counts(data) == {"label without image": 2}
    assert "b.txt" in str(data.report)


def test_labels_that_another_split_or_list_uses_are_not_counted(tmp_path: Path) -> None:
    root = with_yaml(tmp_path, "train: images/train\nval: lists/val.txt\nnames: [cat]\n")
    for image in ("train/a", "val/b", "val/c"):
        make(root, f"images/{image}.jpg", f"labels/{image}.txt")
    (root / "lists").mkdir()
    (root / "lists" / "val.txt").write_text("images/val/b.jpg\n")  # a list may leave images out
    data = data_of(root)
    assert (read(data), read(data, "val")) == ({"a.jpg": BOX}, {"b.jpg": BOX})
    assert counts(data) == {}


def test_a_blank_line_among_names_takes_a_number(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.jpg", "labels/a.txt", "2 0.5 0.5 0.5 0.5\n")
    (root / "classes.txt").write_text("cat\n\ndog\nbird\n")
    with pytest.raises(DataError, match="class 1 has no name"):
        data_of(root).setup()
    (root / "classes.txt").write_text("cat\ncow\ndog\n\n \n")
    assert read(data_of(root)) == {"a.jpg": [[*BOX[0][:4], "dog"]]}
