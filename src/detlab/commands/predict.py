"""detlab predict: detections in images without annotations, as pictures, as COCO json, and as YOLO's text files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from rich.progress import track

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.data.audit import printable
from detlab.data.images import ImageError, read_image
from detlab.data.unlabelled import find_images
from detlab.drawing.pictures import Boxes, draw_boxes
from detlab.model.overflow import overflow_note, overflowed
from detlab.runs.loading import Loaded, OverflowWarning, load
from detlab.system.files import write_json, write_whole
from detlab.system.printing import say

USAGE = "detlab predict run=outputs/... source=images/"


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="predict")
@on_plain_config("predict")
def main(config: dict[str, Any]) -> None:
    """Predict and write pictures and predictions.json."""
    predict(config)


def predict(config: dict[str, Any]) -> Path:
    """Detect in all images of a source; returns the folder with pictures/, predictions.json and, if asked for, labels/.

    Images that cannot be read are reported and skipped.

    Raises:
        ConfigError: there is no image or no checkpoint, a class is unknown, or another runtime than torch is not there,
            cannot run this detector or detects something else.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    device = config["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and config["runtime"] == "torch" else "cpu"
    files, skipped = find_images(config["source"])
    loaded = load(
        config["run"],
        ckpt=config["ckpt"],
        device=device,
        trust=config["trust"],
        tta=config.get("tta"),
        runtime=config["runtime"],
        precision=config["precision"],
    )
    loaded.labels_of(config["classes"])  # refuses an unknown class before anything is written
    out = Path(config["paths"]["run_dir"])
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    labels = YoloLabels(out, config["source"], loaded.names) if config["save_txt"] else None
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    size, threshold = config["batch_size"], config["score_threshold"]
    for start in track(range(0, len(files), size), description="predict"):
        part = []
        for file in files[start : start + size]:
            try:
                part.append((file, read_image(file)))
            except ImageError as error:
                unreadable.append(f"{file.name}: {error}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OverflowWarning)  # said once, at the end
            found = loaded.predict([image for _, image in part], classes=config["classes"], batch_size=size)
        for (file, image), detections in zip(part, found, strict=True):
            number = len(images) + 1
            images.append({"id": number, "file_name": str(file), "height": image.shape[1], "width": image.shape[2]})
            results += _coco_rows(loaded, number, len(results) + 1, detections)
            kept = _above(detections, threshold)
            draw_boxes(image, kept, loaded.names).save(out / "pictures" / f"{number:05d}-{file.stem}.png")
            if labels is not None:
                labels.write(file, number, kept, image.shape[1], image.shape[2])
    ids = loaded.category_ids[: len(loaded.names)]
    categories = [{"id": int(i), "name": n} for i, n in zip(ids, loaded.names, strict=True)]
    write_json(out / "predictions.json", {"images": images, "categories": categories, "annotations": results})
    for line in [*unreadable, *(f"{path.name}: no image that Pillow reads" for path in skipped)]:
        say(f"not read    {line}")
    if count := overflowed(loaded.detector):
        say(f"note        {overflow_note(count, len(images), str(loaded.checkpoint.path))}", stderr=True)
    left_out = f", {len(unreadable) + len(skipped)} files not read" if unreadable or skipped else ""
    say(f"results     {out} ({len(images)} pictures, {len(results)} detections{left_out})")
    return out


class YoloLabels:
    """Writes labels/NAME.txt for each image, rows of label, cx, cy, w, h as shares of the image, and classes.txt.

    `data=yolo` and tools for annotation read them. NAME is the image's path below a source folder, else its name; the
    image's number comes first where another image has the same.
    """

    def __init__(self, out: Path, source: str | Sequence[str], names: Sequence[str]) -> None:
        self.folder = out / "labels"
        self.folder.mkdir(parents=True, exist_ok=True)
        top = Path(source).expanduser() if isinstance(source, str) else None
        self.top = top if top is not None and top.is_dir() else None
        self.taken: set[Path] = set()
        write_whole(out / "classes.txt", "".join(f"{printable(name)}\n" for name in names).encode())

    def write(self, file: Path, number: int, found: Boxes, height: int, width: int) -> None:
        """Write an image's file; one without rows if nothing was found."""
        name = (file.relative_to(self.top) if self.top is not None else Path(file.name)).with_suffix(".txt")
        if name in self.taken:
            name = name.with_name(f"{number:05d}-{name.name}")
        self.taken.add(name)
        sides = np.array([width, height, width, height])
        boxes = np.clip(found.boxes / sides, 0, 1)
        rows = []
        for label, (x1, y1, x2, y2) in zip(found.labels.tolist(), boxes.tolist(), strict=True):
            rows.append(f"{label} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(rows).encode())


def _coco_rows(loaded: Loaded, image_id: int, first: int, found: dict[str, Any]) -> list[dict[str, Any]]:
    """COCO results with the id, area and iscrowd of annotations; ids count from `first`."""
    rows: list[dict[str, Any]] = []
    for box, score, label in zip(found["boxes"].tolist(), found["scores"], found["labels"], strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        rows.append(
            {
                "id": first + len(rows),
                "image_id": image_id,
                "category_id": int(loaded.category_ids[label]),
                "bbox": [box[0], box[1], width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": float(score),
            }
        )
    return rows


def _above(found: dict[str, Any], threshold: float) -> Boxes:
    keep = found["scores"] >= threshold
    return Boxes(found["boxes"][keep], found["labels"][keep], found["scores"][keep])


if __name__ == "__main__":
    run_app(main, "predict")
