"""Names and links of strangers: paths of thousands of folders, links out of the root, very many classes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from detlab.data.formats.coco import coco
from detlab.data.formats.csv_boxes import csv_boxes
from detlab.data.formats.source import unique
from detlab.data.formats.voc import voc
from detlab.data.formats.yolo import yolo
from detlab.data.places import Finder, files_below
from detlab.data.records import Classes, record
from detlab.data.splits import renamed
from detlab.errors import DataError
from tests.data.writing import coco_json, counts, picture, read, row, simple_voc, simple_yolo

AUTO = dict.fromkeys(("train", "val", "test"), "auto")


@pytest.mark.parametrize(
    "name", ["x/" * 2000 + "a.jpg", "x/" * 500_000 + "a.jpg", "\\x" * 2000, "a.jpg" + "/.." * 1300]
)
def test_long_paths_are_missing_at_once(tmp_path: Path, name: str) -> None:
    """They took minutes: every end of the path was tried, and every folder of it asked for."""
    picture(tmp_path / "b.jpg")
    start = time.process_time()
    found = Finder(tmp_path, [tmp_path / "images"]).find_all([name, "x/home/me/set/b.jpg"])
    assert [one.there for one in found] == [False, True]
    assert time.process_time() < start + 4


def stranger(root: Path) -> Path:
    """A folder outside of the root, with an image, an annotation and a label."""
    other = root.parent / "elsewhere"
    picture(other / "far.jpg")
    (other / "far.xml").write_text("<annotation/>")
    (other / "far.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return other


def test_links_to_folders_outside_are_not_followed(tmp_path: Path) -> None:
    """One to / would have every file of the machine opened, to see whether it is an image."""
    root = simple_yolo(tmp_path / "yolo")
    other = stranger(root)
    train = root / "images" / "train"
    (train / "more").symlink_to(other)
    (train / "again").symlink_to(root / "images/val")
    seen = {path.relative_to(train).as_posix() for path in files_below(train, root)}
    assert seen == {"0.jpg", "1.jpg", "more", "again/0.jpg", "again/1.jpg"}
    data = yolo(root=str(root), size=40, cache_dir=None)
    assert set(read(data)) == {"0.jpg", "1.jpg"}
    assert counts(data)["image outside the root"] == 1
    assert "far.jpg" in read(yolo(root=str(root), size=40, cache_dir=None, outside_root=True))


def test_nor_by_tables_and_annotations_without_lists(tmp_path: Path) -> None:
    root = simple_voc(tmp_path / "voc")
    other = stranger(root)
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").unlink()
    for name in ("JPEGImages", "Annotations"):
        (root / name / "more").symlink_to(other)
    assert counts(voc(root=str(root), sets=AUTO, size=40, cache_dir=None)) == {}
    (root / "train.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,20,20\n")
    table = csv_boxes(root=str(root), annotations=AUTO, images="JPEGImages", size=40, cache_dir=None)
    assert counts(table) == {"image without a row": 3}


def test_very_many_classes_take_seconds(tmp_path: Path) -> None:
    """Comparing each name with all others took minutes."""
    many = [f"c{i}" for i in range(30_000)]
    start = time.process_time()
    assert unique(many, "x") == tuple(many)
    picture(tmp_path / "a.jpg")
    coco_json(tmp_path / "train.json", [{"id": 1, "file_name": "a.jpg"}], [row(1, 1, [5, 5, 20, 15])], many)
    data = coco(root=str(tmp_path), annotations="train.json", images=None, size=40, cache_dir=None)
    assert read(data) == {"a.jpg": [[5, 5, 25, 20, "c0"]]}
    classes = Classes(tuple(many), tuple(range(len(many))))
    assert classes.chosen(many)[1][5] == 5
    assert renamed(classes, {}, many[::-1])[0].ids[0] == len(many) - 1
    assert time.process_time() < start + 6
    with pytest.raises(DataError, match=r"'x', which the data set lacks; it has c0, c1, .*c99 \.\.\.\.$"):
        classes.chosen(["x"])
    with pytest.raises(DataError, match="'c7' twice"):
        classes.chosen([*many, "c7"])


def test_areas_that_are_none_are_those_of_the_boxes(tmp_path: Path) -> None:
    """COCO's metric counts no box of a negative or an enormous area."""
    picture(tmp_path / "a.jpg")
    rows = [row(i, 1, [i, 5, 20, 15], area=area) for i, area in enumerate([-5, 1e300, "x", 7, 0])]
    coco_json(tmp_path / "train.json", [{"id": 1, "file_name": "a.jpg"}], rows)
    data = coco(root=str(tmp_path), annotations="train.json", images=None, size=40, cache_dir=None)
    data.required = ()
    assert data.records("train")[0].area.tolist() == [300, 300, 300, 7, 0]


def test_a_box_at_the_end_of_a_float_s_range(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    picture(tmp_path / "a.jpg")
    rows = [row(1, 1, [1e308, 5, 20, 15]), row(2, 1, [5, 5, 20, 15])]
    record(id=1, name="x", path=None, size=(1, 1), objects=[{"box": [-1e308, -1e308, 1e308, 1e308], "label": 0}])
    coco_json(tmp_path / "train.json", [{"id": 1, "file_name": "a.jpg"}], rows)
    data = coco(root=str(tmp_path), annotations="train.json", images=None, size=40, cache_dir=None)
    assert read(data) == {"a.jpg": [[5, 5, 25, 20, "cat"]]}
    assert not [str(w.message) for w in recwarn if "overflow" in str(w.message)]


@pytest.mark.parametrize("root", [".", "sub/.."])
@pytest.mark.parametrize("name", ["x.png", "a//b.png", "./a/./b.png", "a/../x.png", "a/b.png"])
def test_files_found_at_once_are_those_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, name: str
) -> None:
    """`find_all` looks at the text of a path alone where it can, `find` at every file."""
    monkeypatch.chdir(tmp_path)
    for file in ("x.png", "a/b.png", "sub/y.png"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    finder = Finder(Path(root), [])
    (found,), searched = finder.find_all([name]), finder.find(name)
    assert found.there
    assert found.text == searched.text == str(found.path)
