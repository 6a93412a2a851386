"""Small data sets of public bug reports, beside the checkout, each with its right answer."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from detlab.config.compose import compose_config, plain_config
from detlab.data.contents import contents
from detlab.data.datamodule import DetectionData
from detlab.errors import DataError

COCO = [("1.jpg", [[4, 4, 24, 24, "cat"]]), ("2.jpg", [[8, 8, 38, 38, "dog"]])]
YOLO = [[19.2, 14.4, 44.8, 33.6, "cat"]]
VOC = [[4, 4, 30, 30, "cat"]]
TWO = [[4, 4, 30, 30, "cat"], [19, 4, 50, 30, "dog"]]
BOTH = ("train", "val")
NAMES = ("a.jpg", "b.jfif", "c.ppm", "d.gif", "e.jpe", "f.jp2", "g.mpo")
RIGHT: dict[str, dict[str, list[tuple[str, list[list[Any]]]]]] = {
    "coco-ids-differ": {"train": COCO, "val": [("3.jpg", [[4, 4, 24, 24, "dog"]])]},
    "coco-val-empty": {"train": COCO, "val": [("3.jpg", [])]},
    "coco-train-empty": {"train": [("1.jpg", []), ("2.jpg", [])], "val": [("3.jpg", [[8, 8, 38, 38, "dog"]])]},
    **{f"coco-{name}": {"train": COCO} for name in ("iscrowd-text", "float-references", "text-numbers", "text-ids")},
    "coco-annotation-id-per-image": {"train": [COCO[0], ("2.jpg", [*COCO[1][1], [2, 2, 11, 11, "cat"]])]},
    "coco-backslash": {"train": [(f"images/{name}", boxes) for name, boxes in COCO]},
    "coco-bom": {"train": COCO},
    **{
        f"voc-{name}": {"train": [("JPEGImages/a.jpg", VOC)], "val": [("JPEGImages/b.jpg", VOC)]}
        for name in ("bom", "list-extension", "broken-xml")
    },
    "voc-spaces": {
        "train": [("JPEGImages/img 1.jpg", VOC), ("JPEGImages/img 2.jpg", VOC)],
        "val": [("JPEGImages/img (3).jpg", VOC)],
    },
    "voc-train": {
        "train": [("JPEGImages/a.jpg", TWO), ("JPEGImages/b.jpg", TWO)],
        "val": [("JPEGImages/c.jpg", TWO)],
    },
    "voc-testset": {"test": [("JPEGImages/t.jpg", [[4, 4, 30, 30, "dog"]])]},
    **{name: {split: [("images/train/a.jpg", YOLO)] for split in BOTH} for name in ("yolo-bom", "yolo-duplicates")},
    "yolo-pose": {split: [("images/train/a.jpg", [[25.6, 19.2, 38.4, 28.8, "hand"]])] for split in BOTH},
    "yolo-roboflow": {
        "train": [("train/images/a.jpg", YOLO)],
        "val": [("valid/images/b.jpg", [[16, 12, 35.2, 26.4, "dog"]])],
        "test": [("test/images/c.jpg", [[16, 12, 35.2, 26.4, "dog"]])],
    },
    "yolo-extensions": {split: [(f"images/train/{name}", YOLO) for name in NAMES] for split in BOTH},
}
FOUND = {
    "voc-broken-xml": {"train": {"broken annotation": 1}},
    "yolo-duplicates": {"train": {"duplicate box": 2}},
    "coco-val-empty": {"val": {"image without boxes": 1}},
}


@cache
def defaults(kind: str) -> dict[str, Any]:
    """The options of `detlab data data=KIND`."""
    composed = compose_config("data", [f"data={kind}", "data.cache_dir=null", "name=x", "paths.run_dir=."])
    return plain_config(composed, ("data",))["data"]


def data_of(case: Path, **options: Any) -> DetectionData:
    """The data set as `detlab data` reads it."""
    kind = case.name.split("-")[0]
    data: DetectionData = instantiate(defaults(kind) | {"root": str(case)} | options, _convert_="all")
    data.required = ()
    return data


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_boxes(cases_root: Path, name: str) -> None:
    data = data_of(cases_root / name)
    data.setup()
    splits = contents(data)["splits"]
    assert {s: [(i["file"], i["boxes"]) for i in found["items"]] for s, found in splits.items()} == RIGHT[name]
    assert all((item["width"], item["height"]) == (64, 48) for found in splits.values() for item in found["items"])
    for split, findings in FOUND.get(name, {}).items():
        assert splits[split]["findings"] == findings


def test_links(cases_root: Path) -> None:
    """A checkout may have written them as text."""
    inner = data_of(cases_root / "yolo-symlink-images")
    inner.setup()
    assert [r.boxes.round(6).tolist() for r in inner.records("train")] == [[YOLO[0][:4]]] * 2
    root = cases_root / "yolo-symlink-outside"
    with pytest.raises(DataError, match=r"data\.outside_root=true"):
        data_of(root, root=f"{root}/poly").setup()
    outer = data_of(root, root=f"{root}/poly", outside_root=True)
    outer.setup()
    assert [r.boxes.round(6).tolist() for r in outer.records("train")] == [[YOLO[0][:4]]] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco-same-name", "two categories are named 'fish', ids 1 and 2"),
        ("yolo-no-labels-folder", r"None of the 2 images of train has a label file .*data\.labels=FOLDER"),
    ],
)
def test_refused(cases_root: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(cases_root / name).setup()


def test_the_labels_of_another_folder(cases_root: Path) -> None:
    data = data_of(cases_root / "yolo-no-labels-folder", labels="train/labelTxt")
    data.setup()
    assert [len(r.labels) for r in data.records("train")] == [1, 1]


def test_every_case_is_known(cases_root: Path) -> None:
    known = {*RIGHT, "yolo-symlink-images", "yolo-symlink-outside", "coco-same-name", "yolo-no-labels-folder"}
    here = {path.name for path in cases_root.iterdir() if path.is_dir() and re.match("coco|voc|yolo", path.name)}
    assert known <= here
