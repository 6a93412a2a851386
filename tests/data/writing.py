"""Small data sets on disk, clean and dirty, in every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detlab.data.contents import contents
from detlab.data.datamodule import DetectionData
from detlab.data.records import Record, record


def picture(path: Path, size: tuple[int, int] = (40, 60), mode: str = "RGB", **save: Any) -> Path:
    """A random picture of (height, width)."""
    rng = np.random.default_rng(len(path.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        array = rng.integers(0, 65536, size, dtype=np.uint16)
        Image.fromarray(array).save(path, **save)
    else:
        array = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(array).convert(mode).save(path, **save)
    return path


def coco_json(
    path: Path,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    names: Sequence[str] = ("cat", "dog"),
) -> Path:
    """A COCO file; category ids are 3, 6, 9, ..."""
    categories = [{"id": 3 * (i + 1), "name": name} for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def row(id: int, image_id: int, bbox: Sequence[float], category_id: int = 3, **more: Any) -> dict[str, Any]:
    """A COCO annotation."""
    return {"id": id, "image_id": image_id, "bbox": list(bbox), "category_id": category_id, **more}


def simple_coco(root: Path, count: int = 6) -> Path:
    """`count` pictures of 40 x 60, each with a box; train and val share the file's pictures by halves."""
    for i in range(count):
        picture(root / "images" / f"{i}.png")
    half = count // 2
    for split, ids in (("train", range(half)), ("val", range(half, count))):
        images = [{"id": i + 1, "file_name": f"{i}.png", "height": 40, "width": 60} for i in ids]
        rows = [row(i + 1, i + 1, [5, 5, 20, 15], 3 if i % 2 else 6) for i in ids]
        coco_json(root / f"{split}.json", images, rows)
    return root


def voc_xml(path: Path, boxes: Sequence[tuple[str, Sequence[Any]]], size: tuple[int, int] = (40, 60)) -> None:
    """An annotation of one picture; boxes are (name, (xmin, ymin, xmax, ymax))."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{path.stem}.jpg</filename><size><width>{size[1]}</width><height>{size[0]}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def simple_voc(root: Path) -> Path:
    """Four pictures, two for train and two for val."""
    for i, name in enumerate("abcd"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        voc_xml(root / "Annotations" / f"{name}.xml", [("dog" if i % 2 else "cat", (1, 1, 10, 20))])
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\nd\n")
    return root


def simple_yolo(root: Path) -> Path:
    """Four pictures, two for train and two for val."""
    for split in ("train", "val"):
        for i in range(2):
            picture(root / "images" / split / f"{i}.jpg")
            label = root / "labels" / split / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("1 0.5 0.5 0.5 0.25\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")
    return root


def read(data: DetectionData, split: str = "train") -> dict[str, list[list[Any]]]:
    """Boxes of each image of a split by the image's name: [x1, y1, x2, y2, class name]; nothing is required of it."""
    data.required = ()
    data.setup()
    found = contents(data)["splits"].get(split, {"items": []})
    return {Path(item["file"]).name: item["boxes"] for item in found["items"]}


def counts(data: DetectionData) -> dict[str, int]:
    """Findings of all splits by rule."""
    data.required = ()
    data.setup()
    tally: dict[str, int] = {}
    for finding in data.report.findings.values():
        tally[finding.rule] = tally.get(finding.rule, 0) + finding.count
    return tally


def labelled(id: int, labels: Sequence[int]) -> Record:
    """A record of boxes with these labels."""
    return record(
        id=id, name=f"{id}.png", path=None, size=(40, 60), objects=[{"box": [0, 0, 5, 5], "label": k} for k in labels]
    )
