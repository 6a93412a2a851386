"""detlab predict: detections in images without annotations, as pictures with boxes and as COCO results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import torch
from rich.progress import track

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.data.images import ImageError, Listing, list_images, read_image
from detlab.drawing.pictures import Boxes, draw_boxes
from detlab.errors import ConfigError
from detlab.runs.loading import Loaded, load
from detlab.system.files import write_json
from detlab.system.printing import say

USAGE = "detlab predict run=outputs/... source=images/"


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="predict")
@on_plain_config("predict")
def main(config: dict[str, Any]) -> None:
    """Predict and write pictures and predictions.json."""
    predict(config)


def predict(config: dict[str, Any]) -> Path:
    """Detect in all images of a source; returns the folder with pictures/ and predictions.json.

    Images that cannot be read are reported and skipped.

    Raises:
        ConfigError: there is no image or no checkpoint.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    device = config["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    files, skipped = find_images(config["source"])
    loaded = load(config["run"], ckpt=config["ckpt"], device=device, trust=config["trust"], tta=config.get("tta"))
    out = Path(config["paths"]["run_dir"])
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    size = config["batch_size"]
    for start in track(range(0, len(files), size), description="predict"):
        part = []
        for file in files[start : start + size]:
            try:
                part.append((file, read_image(file)))
            except ImageError as error:
                unreadable.append(f"{file.name}: {error}")
        found = loaded.predict([image for _, image in part], batch_size=size)
        for (file, image), detections in zip(part, found, strict=True):
            number = len(images) + 1
            images.append({"id": number, "file_name": str(file), "height": image.shape[1], "width": image.shape[2]})
            results += _coco_rows(loaded, number, detections)
            _picture(loaded, image, detections, config["score_threshold"]).save(
                out / "pictures" / f"{number:05d}-{file.stem}.png"
            )
    names = ("object",) if loaded.detector.class_agnostic else loaded.class_names
    categories = [{"id": int(i), "name": n} for i, n in zip(loaded.category_ids[: len(names)], names, strict=True)]
    write_json(out / "predictions.json", {"images": images, "categories": categories, "annotations": results})
    for line in [*unreadable, *(f"{path.name}: no image that Pillow reads" for path in skipped)]:
        say(f"not read    {line}")
    left_out = f", {len(unreadable) + len(skipped)} files not read" if unreadable or skipped else ""
    say(f"results     {out} ({len(images)} pictures, {len(results)} detections{left_out})")
    return out


def find_images(source: str) -> Listing:
    """The image, or all images of a folder in order of their names, and the folder's other files.

    Raises:
        ConfigError: the source is neither an image nor a folder with images.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = list_images(path)
        if found.images:
            return found
        none = f"; none of its {len(found.skipped)} files is one that Pillow reads" if found.skipped else ""
        raise ConfigError(f"source={source} is a folder without images{none}; give an image, or a folder of images.")
    if not path.exists():
        raise ConfigError(f"source={source} is not there; give an image, or a folder of images.")
    return Listing([path], [])


def _coco_rows(loaded: Loaded, image_id: int, found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for box, score, label in zip(found["boxes"].tolist(), found["scores"], found["labels"], strict=True):
        rows.append(
            {
                "image_id": image_id,
                "category_id": int(loaded.category_ids[label]),
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "score": float(score),
            }
        )
    return rows


def _picture(loaded: Loaded, image: torch.Tensor, found: dict[str, Any], threshold: float) -> Any:
    keep = found["scores"] >= threshold
    names = ("object",) if loaded.detector.class_agnostic else loaded.class_names
    return draw_boxes(image, Boxes(found["boxes"][keep], found["labels"][keep], found["scores"][keep]), names)


if __name__ == "__main__":
    run_app(main, "predict")
