"""Whole exports of Roboflow, CVAT, LabelImg and Label Studio, in the layouts that these tools document.

Every export holds a.jpg and, where the tool writes splits, b.jpg, of 60 x 40 px, with a cat at 4..24, 5..15.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detlab.config.compose import compose_config, plain_config
from detlab.config.parts import build_part
from detlab.data import DetectionData
from tests.data.writing import picture, read

CAT = [4, 5, 24, 15, "cat"]
ROW = f"0 {14 / 60:.6f} {10 / 40:.6f} {20 / 60:.6f} {10 / 40:.6f}\n"


def xml(name: str, folder: str, path: str = "", more: str = "") -> str:
    """An annotation as these tools write it; corners count from 1."""
    return (
        f"<annotation><folder>{folder}</folder><filename>{name}</filename><path>{path}</path>"
        "<source><database>Unknown</database></source><size><width>60</width><height>40</height><depth>3</depth></size>"
        f"<segmented>0</segmented><object><name>cat</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><occluded>0</occluded>{more}<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>24</xmax>"
        "<ymax>15</ymax></bndbox></object></annotation>"
    )


def coco(file_name: str, categories: list[dict[str, Any]], id: int, first: int = 1) -> str:
    """A COCO file with one image and one box."""
    return json.dumps(
        {
            "info": {"year": "2026", "version": "1", "contributor": "", "url": "", "date_created": ""},
            "licenses": [{"id": 1, "url": "", "name": ""}],
            "categories": categories,
            "images": [{"id": first, "license": 1, "file_name": file_name, "height": 40, "width": 60}],
            "annotations": [
                {
                    "id": first, "image_id": first, "category_id": id, "bbox": [4, 5, 20, 10], "area": 200,
                    "segmentation": [], "iscrowd": 0, "ignore": 0,
                }
            ],
        }
    )  # fmt: skip


ATTRIBUTES = "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes>"
ROBOFLOW = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
EXPORTS: dict[str, tuple[str, list[str], dict[str, str], dict[str, list[str]]]] = {
    # name: data=, images, files with their content, {split: images}
    "Roboflow COCO": (
        "coco",
        ["train/a.jpg", "valid/b.jpg"],
        {
            "train/_annotations.coco.json": coco("a.jpg", ROBOFLOW, 1, 0),
            "valid/_annotations.coco.json": coco("b.jpg", ROBOFLOW, 1, 0),
            "README.roboflow.txt": "pets",
        },
        {"train": ["a.jpg"], "val": ["b.jpg"]},
    ),
    "Roboflow VOC": (
        "voc",
        ["train/a.jpg", "valid/b.jpg"],
        {
            "train/a.xml": xml("a.jpg", "", "a.jpg"),
            "valid/b.xml": xml("b.jpg", "", "b.jpg"),
            "README.dataset.txt": "pets",
        },
        {"train": ["a.jpg"], "val": ["b.jpg"]},
    ),
    "Roboflow YOLO": (
        "yolo",
        ["train/images/a.jpg", "valid/images/b.jpg"],
        {
            "train/labels/a.txt": ROW,
            "valid/labels/b.txt": ROW,
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\n"
            "names: ['cat']\n\nroboflow:\n  workspace: me\n  project: pets\n  version: 1\n",
        },
        {"train": ["a.jpg"], "val": ["b.jpg"]},
    ),
    "CVAT COCO": (
        "coco",
        ["images/a.jpg"],
        {"annotations/instances_default.json": coco("a.jpg", [{"id": 1, "name": "cat", "supercategory": ""}], 1)},
        {"train": ["a.jpg"]},
    ),
    "CVAT VOC": (
        "voc",
        ["JPEGImages/a.jpg"],
        {
            "Annotations/a.xml": xml("a.jpg", "", more=ATTRIBUTES),
            "ImageSets/Main/default.txt": "a\n",
            "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n",
        },
        {"train": ["a.jpg"]},
    ),
    "CVAT YOLO": (
        "yolo",
        ["obj_train_data/a.jpg"],
        {
            "obj_train_data/a.txt": ROW,
            "obj.names": "cat\n",
            "obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
        },
        {"train": ["a.jpg"]},
    ),
    "CVAT Ultralytics YOLO": (
        "yolo",
        ["images/train/a.jpg"],
        {
            "labels/train/a.txt": ROW,
            "data.yaml": "names:\n  0: cat\npath: .\ntrain: train.txt\n",
            "train.txt": "data/images/train/a.jpg\n",
        },
        {"train": ["a.jpg"]},
    ),
    "LabelImg VOC": (
        "voc",
        ["a.jpg"],
        {"a.xml": xml("a.jpg", "photos", r"C:\Users\me\photos\a.jpg")},
        {"train": ["a.jpg"]},
    ),
    "LabelImg YOLO": ("yolo", ["a.jpg"], {"a.txt": ROW, "classes.txt": "cat\n"}, {"train": ["a.jpg"]}),
    "Label Studio COCO": (
        "coco",
        ["images/a.jpg"],
        {"result.json": coco("images/a.jpg", [{"id": 0, "name": "cat"}], 0, 0)},
        {"train": ["a.jpg"]},
    ),
    "Label Studio VOC": (
        "voc",
        ["images/a.jpg"],
        {"Annotations/a.xml": xml("a", "images")},
        {"train": ["a.jpg"]},
    ),
    "Label Studio YOLO": (
        "yolo",
        ["images/a.jpg"],
        {"labels/a.txt": ROW, "classes.txt": "cat\n", "notes.json": '{"categories": [{"id": 0, "name": "cat"}]}'},
        {"train": ["a.jpg"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    kind, images, files, splits = EXPORTS[name]
    for image in images:
        picture(tmp_path / image)
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    words = [f"data={kind}", f"data.root={tmp_path}", "data.cache_dir=null", "data.val_fraction=0", "name=x"]
    config = plain_config(compose_config("data", [*words, f"paths.run_dir={tmp_path}"]))
    data = build_part(config["data"], augment=None, seed=0, resize_default="short_side", needs_proposals=False)
    assert isinstance(data, DetectionData)
    for split, names in splits.items():
        found = read(data, split)
        assert sorted(found) == names
        for boxes in found.values():
            assert [[*map(round, box[:4]), box[4]] for box in boxes] == [CAT]
    assert data.class_names == ("cat",)
    told = {finding.rule for finding in data.report.findings.values()}
    assert told <= {"class that heads others", "image at another path"}  # of a project's name; of CVAT's lists
