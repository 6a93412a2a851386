"""A synthetic COCO data set of any size: many names of a few JPEG files, and one json file with boxes and outlines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from detlab.benchmark.loader import write_images

LINKS = 20_000  # names of one file; file systems allow some 65,000
OUTLINES = 500  # different outlines, which boxes share
WHOLE = 10_000  # images whose rows are written at once


def write_coco(
    folder: Path, *, images: int, boxes: int, points: int, classes: int, size: tuple[int, int], files: int
) -> None:
    """Write train.json and val.json, and the folders train and val of hard-linked images, as data=coco finds them.

    Args:
        folder: existing and empty.
        images: entries of train.json; val.json has a twentieth of them.
        boxes: mean boxes of an image; numbers vary from 0 to twice that.
        points: numbers of an outline (COCO's have some fifty); 0 writes none.
        classes: categories.
        size: (height, width) of the images, px.
        files: different JPEG files, at least.
    """
    originals = folder / "files"
    originals.mkdir()
    made = write_images(originals, max(files, -(-images // LINKS)), size, 1)
    for split, count in (("train", images), ("val", max(1, images // 20))):
        (folder / split).mkdir()
        for i in range(count):
            os.link(originals / made[i % len(made)].name, folder / split / _name(i))
        _write_json(folder / f"{split}.json", count, boxes, points, classes, size)


def _write_json(path: Path, images: int, boxes: int, points: int, classes: int, size: tuple[int, int]) -> None:
    with path.open("w") as file:
        categories = [{"id": k + 1, "name": f"class {k}", "supercategory": "none"} for k in range(classes)]
        file.write(f'{{"info": {{}}, "categories": {json.dumps(categories)}, "images": [')
        for i in range(images):
            row = {"id": i + 1, "file_name": _name(i), "height": size[0], "width": size[1], "license": 1}
            file.write(f"{', ' if i else ''}{json.dumps(row)}")
        file.write('], "annotations": [')
        _write_boxes(file, images, boxes, points, classes, size)
        file.write("]}")


def _write_boxes(file: IO[str], images: int, boxes: int, points: int, classes: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    outlines = [json.dumps(np.round(rng.random(points) * size[1], 2).tolist()) for _ in range(OUTLINES)]
    number = 0
    for first in range(0, images, WHOLE):
        counts = rng.integers(0, 2 * boxes + 1, min(WHOLE, images - first))
        image = np.repeat(np.arange(len(counts)) + first + 1, counts)
        low = rng.random((len(image), 2)) * (size[1] / 2, size[0] / 2)
        side = 4 + rng.random((len(image), 2)) * (size[1] / 2 - 8, size[0] / 2 - 8)
        box = np.round(np.concatenate([low, side], 1), 2)
        area = box[:, 2] * box[:, 3] * rng.uniform(0.4, 0.9, len(box))
        labels = rng.integers(1, classes + 1, len(box))
        for row in _rows(image, box, area, labels, outlines if points else [], number):
            file.write(row)
            number += 1


def _rows(
    image: np.ndarray, box: np.ndarray, area: np.ndarray, labels: np.ndarray, outlines: list[str], first: int
) -> Iterator[str]:
    """The text of each annotation; a comma before all but the first of the file."""
    columns = zip(image.tolist(), box.tolist(), area.tolist(), labels.tolist(), strict=True)
    for i, (key, sides, px, label) in enumerate(columns, first):
        outline = f'"segmentation": [{outlines[i % len(outlines)]}], ' if outlines else ""
        yield (
            f'{", " if i else ""}{{{outline}"area": {px!r}, "iscrowd": 0, "image_id": {key}, "bbox": {sides}, '
            f'"category_id": {label}, "id": {i + 1}}}'
        )


def _name(i: int) -> str:
    return f"{i + 1:012}.jpg"
