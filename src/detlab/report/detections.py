"""Stored detections and ground truth of a run as flat arrays, and what COCO's matching makes of them.

T IoU thresholds, N detections, G boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detlab.files import read_json
from detlab.metrics.matching import AREAS, RECALLS, THRESHOLDS, match, pairs_of, place_in_group

MOST = 100  # detections per image and class that COCO counts
SIZES = {f"map{end}": bounds for end, bounds in AREAS.items()}  # metric -> COCO's bounds of the area, px^2


@dataclass
class Truth:
    """A split's annotations."""

    image_ids: np.ndarray  # [I]
    file_names: list[str]
    classes: list[str]
    image: np.ndarray  # [G] row of the image
    label: np.ndarray  # [G] 0..K-1
    boxes: np.ndarray  # [G, 4] xyxy
    area: np.ndarray  # [G] px^2
    crowd: np.ndarray  # [G] bool


@dataclass
class Judged:
    """Detections by class and falling score, with COCO's verdicts over boxes of a range of sizes."""

    classes: int
    image: np.ndarray  # [N] row of the image
    label: np.ndarray  # [N]
    score: np.ndarray  # [N]
    hit: np.ndarray  # [N, T] bool: true positives
    dropped: np.ndarray  # [N, T] bool: on a crowd or of another size, which counts neither way
    truth: np.ndarray  # [N, T] row of the box it matched, -1 for none
    wanted: np.ndarray  # [G] bool: boxes to be found


def as_truth(document: dict[str, Any]) -> Truth:
    """A COCO document as arrays."""
    ids = np.array([image["id"] for image in document["images"]], np.int64)
    rows = {image: row for row, image in enumerate(ids.tolist())}
    labels = {category["id"]: k for k, category in enumerate(document["categories"])}
    boxes = document["annotations"]
    corners = np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Truth(
        image_ids=ids,
        file_names=[str(image.get("file_name") or image["id"]) for image in document["images"]],
        classes=[category["name"] for category in document["categories"]],
        image=np.array([rows[box["image_id"]] for box in boxes], np.int64),
        label=np.array([labels[box["category_id"]] for box in boxes], np.int64),
        boxes=corners,
        area=np.array([box.get("area", box["bbox"][2] * box["bbox"][3]) for box in boxes], np.float64),
        crowd=np.array([bool(box.get("iscrowd", 0)) for box in boxes], bool),
    )


def judge(results: list[dict[str, Any]], truth: Truth, document: dict[str, Any], metric: str = "map") -> Judged:
    """Match COCO results against the ground truth, at every IoU threshold, for one metric of `SIZES`."""
    rows = {image: row for row, image in enumerate(truth.image_ids.tolist())}
    labels = {category["id"]: k for k, category in enumerate(document["categories"])}
    image = np.array([rows[r["image_id"]] for r in results], np.int64)
    label = np.array([labels[r["category_id"]] for r in results], np.int64)
    score = np.array([r["score"] for r in results], np.float64)
    boxes = np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = len(truth.classes)
    group = image * classes + label
    place = place_in_group(group, score)
    kept = np.flatnonzero(place < MOST)
    kept = kept[np.lexsort((place[kept], image[kept], -score[kept], label[kept]))]
    truth_group = truth.image * classes + truth.label
    pairs = pairs_of(group[kept], boxes[kept], truth_group, truth.boxes, truth.crowd, least=THRESHOLDS[0])
    low, high = SIZES[metric]
    ignored = truth.crowd | (truth.area < low) | (truth.area > high)
    matched = match(pairs, place[kept], ignored, truth.crowd, THRESHOLDS)
    area = (boxes[kept, 2:] - boxes[kept, :2]).prod(1)
    other = (matched.truth < 0) & ((area < low) | (area > high))[:, None]
    hit = (matched.truth >= 0) & ~matched.ignored
    return Judged(
        classes, image[kept], label[kept], score[kept], hit, matched.ignored | other, matched.truth, wanted=~ignored
    )


def read_judged(folder: Path, metrics: Sequence[str] = ("map",)) -> tuple[Truth, dict[str, Judged]] | None:
    """The stored detections of a run, judged by metric; None where the run stored none, or no ground truth."""
    document, results = read_json(folder / "ground_truth.json"), read_json(folder / "detections.json")
    if document is None or results is None or not document["images"]:
        return None
    truth = as_truth(document)
    return truth, {metric: judge(results, truth, document, metric) for metric in metrics}


def precision_at(judged: Judged, truth: Truth, threshold: int = 0) -> np.ndarray:
    """Mean precision [101] over the classes at recall 0, 0.01 .. 1, for one IoU threshold."""
    curves = []
    for k in range(judged.classes):
        total = int((~truth.crowd & (truth.label == k)).sum())
        if not total:
            continue
        part = judged.label == k
        hit, dropped = judged.hit[part, threshold], judged.dropped[part, threshold]
        true = hit.cumsum()
        precision = true / np.maximum(true + (~hit & ~dropped).cumsum(), 1)
        highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        curves.append(highest[np.searchsorted(true / total, RECALLS, side="left")])
    return np.mean(curves, axis=0) if curves else np.zeros(101)
