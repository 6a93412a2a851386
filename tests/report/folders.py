"""Run folders as a sweep leaves them, written without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

CLASSES = ("rectangle", "ellipse")


def ground_truth(images: int = 40, classes: int = 2, boxes: int = 3, seed: int = 0) -> dict[str, Any]:
    """A COCO document of random boxes; one in twenty is a crowd."""
    generator = np.random.default_rng(seed)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(generator.integers(0, boxes + 1)):
            x, y, w, h = *generator.uniform(0, 60, 2), *generator.uniform(10, 60, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "bbox": [x, y, w, h], "area": w * h,
                    "category_id": int(generator.integers(1, classes + 1)),
                    "iscrowd": int(generator.uniform() < 0.05), "ignore": 0,
                }
            )  # fmt: skip
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.png", "height": 128, "width": 128} for i in range(1, images + 1)],
        "categories": [{"id": k + 1, "name": CLASSES[k] if classes == 2 else f"class {k}"} for k in range(classes)],
        "annotations": annotations,
    }


def detections(truth: dict[str, Any], shift: float, seed: int, false: int = 2) -> list[dict[str, Any]]:
    """COCO results: every box moved by about `shift` px, some missed, and false ones."""
    generator = np.random.default_rng(seed)
    classes, found = len(truth["categories"]), []
    for box in truth["annotations"]:
        if generator.uniform() < 0.9:
            moved = (np.array(box["bbox"]) + generator.normal(0, shift, 4)).clip(0, 128)
            found.append((box["image_id"], box["category_id"], moved.tolist(), generator.uniform(0.2, 1)))
    for image in truth["images"]:
        for _ in range(false):
            box = [*generator.uniform(0, 60, 2), *generator.uniform(10, 60, 2)]
            found.append((image["id"], int(generator.integers(1, classes + 1)), box, generator.uniform(0, 0.6)))
    found.sort(key=lambda f: f[0])
    return [
        {"image_id": i, "category_id": int(k), "bbox": [float(v) for v in box], "score": round(float(s), 2)}
        for i, k, box, s in found
    ]


def write_run(
    folder: Path,
    overrides: list[str],
    *,
    value: float = 0.5,
    shift: float = 2.0,
    state: str = "finished",
    batch: int = 8,
    answer: str | None = None,
    paper: dict[str, Any] | None = None,
) -> Path:
    """A run folder with these overrides."""
    truth = ground_truth()
    chosen = dict(o.split("=", 1) for o in overrides)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    config: dict[str, Any] = {
        "seed": int(chosen.get("seed", 0)),
        "optim": {"lr": 0.001},
        "model": {"neck": {"width": 32}},
        "answer": answer,
        "paper": paper,
    }
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    groups = {"model/neck": "fpn", "hydra/launcher": "processes", **{k: v for k, v in chosen.items() if "/" in k}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": groups}}}))
    reason = None if state == "finished" else "ValueError: broken"
    (folder / "status.json").write_text(json.dumps({"state": state, "reason": reason, "monitor": "val/map"}))
    if state != "finished":
        return folder
    seed = 100 * int(chosen.get("seed", 0))
    metrics = {"map": value, "map_50": value + 0.2, "map_small": value / 2, "ap/rectangle": value, "ap/ellipse": value}
    kinds = {k: {"count": 3, "ap_regained": 0.02} for k in ("classification", "localisation", "missed", "background")}
    result = {"metrics": metrics, "class_names": list(CLASSES), "errors": {"kinds": kinds}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    (folder / "detections.json").write_text(json.dumps(detections(truth, shift, seed + 1)))
    budget = {"epochs": 3, "images_seen": 1200, "batch": batch, "lr": 0.001, "parameters": 12_345_678}
    (folder / "budget.json").write_text(json.dumps({**budget, "flops": 2.5e9, "hours": 0.02, "latency_ms": 14.2}))
    rows = "".join(f"{e},{10 * e + 9},{value * (e + 1) / 3},\n{e},{10 * e + 9},,0.3\n" for e in range(3))
    (folder / "metrics.csv").write_text("epoch,step,val/map,train/loss\n" + rows)
    (folder / "pictures").mkdir()
    Image.new("RGB", (300, 200), (200, 220, 240)).save(folder / "pictures" / "test-step000030.png")
    return folder


def write_sweep(top: Path, seeds: int = 3) -> Path:
    """Two factors of two levels: the second neck is much better, the second loss changes nothing; one run failed."""
    number = 0
    for neck, loss in (("none", "l1"), ("none", "giou"), ("fpn", "l1"), ("fpn", "giou")):
        for seed in range(seeds):
            failed = (neck, loss, seed) == ("fpn", "giou", 2)
            value = 0.3 + 0.3 * (neck == "fpn") + 0.01 * seed
            write_run(
                top / str(number), [f"model/neck={neck}", f"model/box_loss={loss}", f"seed={seed}", "logger=csv"],
                value=value, shift=1.5 if neck == "fpn" else 5.0, state="failed" if failed else "finished",
            )  # fmt: skip
            number += 1
    return top
