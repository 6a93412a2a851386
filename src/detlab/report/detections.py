"""Stored detections and ground truth of a run as flat arrays, matched by the rules of COCO and VOC.

T IoU thresholds, N detections, G boxes, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detlab.metrics.matching import AREAS, RECALLS, THRESHOLDS, Pairs, match, pairs_of, place_in_group
from detlab.report.runs import ReportError
from detlab.system.foreign import ForeignFileError, read_json_bounded

MOST = 100  # detections per image and class that COCO counts
SIZES = {f"map{end}": bounds for end, bounds in AREAS.items()}  # {metric: COCO's bounds of the box area, px^2}
LARGEST = 1e9  # px; of a number of a box
VOC_IOU = 0.5  # a match needs an IoU of at least


@dataclass
class Truth:
    """Annotations of a split."""

    image_ids: np.ndarray  # [I]
    file_names: list[str]
    classes: list[str]
    image: np.ndarray  # [G] row of the image
    label: np.ndarray  # [G] 0..K-1
    boxes: np.ndarray  # [G, 4] xyxy
    area: np.ndarray  # [G] px^2
    crowd: np.ndarray  # [G] bool
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # [G] bool; empty if no box is

    @property
    def digest(self) -> str:
        """Hash of images, boxes and classes: equal for runs tested on the same data."""
        text = hashlib.blake2b("\n".join(self.classes).encode(), digest_size=16)
        for part in (self.image_ids, self.image, self.label, self.boxes, self.area, self.crowd, self.difficult):
            text.update(np.ascontiguousarray(part).tobytes())
        return text.hexdigest()


@dataclass
class Judged:
    """Detections by class and descending score, matched with the boxes of a range of sizes."""

    classes: int
    image: np.ndarray  # [N] row of the image
    label: np.ndarray  # [N]
    score: np.ndarray  # [N]
    hit: np.ndarray  # [N, T] bool: true positives
    dropped: np.ndarray  # [N, T] bool: neither true nor false positive: matched a crowd, or of another size
    truth: np.ndarray  # [N, T] row of the matched box, -1 for none
    wanted: np.ndarray  # [G] bool: boxes that count for recall
    place: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [N] rank in its image and class, from 0


class Stored(NamedTuple):
    """Detections in the order in which a run stored them."""

    image: np.ndarray  # [N] row of the image
    label: np.ndarray  # [N]
    score: np.ndarray  # [N]
    boxes: np.ndarray  # [N, 4] xyxy


class Candidates(NamedTuple):
    """Detections that count, by class and descending score, with the boxes that they overlap."""

    stored: Stored
    place: np.ndarray  # [N] rank in its image and class, from 0
    pairs: Pairs
    label: np.ndarray  # [G] classes of the boxes


def read_truth(path: Path) -> Truth | None:
    """Read ground_truth.json (COCO) of a run; None if it does not exist.

    Raises:
        ReportError: the file is damaged.
    """
    if not path.exists():
        return None
    with _sound(path):
        return as_truth(read_json_bounded(path))


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turn whatever a file of another shape leads to into one sentence.

    Raises:
        ReportError: names the file.
    """
    try:
        yield
    except (ForeignFileError, ReportError) as error:
        raise ReportError(str(error)) from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ReportError(f"{path} holds other entries than detlab evaluate writes ({reason}).") from error


def as_truth(document: dict[str, Any]) -> Truth:
    """A COCO document as arrays."""
    ids = np.array([image["id"] for image in document["images"]], np.int64)
    rows = {image: row for row, image in enumerate(ids.tolist())}
    labels = {category["id"]: k for k, category in enumerate(document["categories"])}
    boxes = document["annotations"]
    corners = np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4)
    _check_boxes(corners)
    corners[:, 2:] += corners[:, :2]
    if len(rows) < len(ids) or len(labels) < len(document["categories"]):
        raise ValueError("two images or two categories have one id")
    return Truth(
        image_ids=ids,
        file_names=[str(image.get("file_name") or image["id"]) for image in document["images"]],
        classes=[str(category["name"]) for category in document["categories"]],
        image=np.array([rows[box["image_id"]] for box in boxes], np.int64),
        label=np.array([labels[box["category_id"]] for box in boxes], np.int64),
        boxes=corners,
        area=np.array([box.get("area", box["bbox"][2] * box["bbox"][3]) for box in boxes], np.float64),
        crowd=np.array([bool(box.get("iscrowd", 0)) for box in boxes], bool),
        difficult=np.array([bool(box.get("difficult", 0)) for box in boxes], bool),
    )


def as_stored(results: list[dict[str, Any]], truth: Truth, document: dict[str, Any]) -> Stored:
    """COCO results as arrays."""
    rows = {image: row for row, image in enumerate(truth.image_ids.tolist())}
    labels = {category["id"]: k for k, category in enumerate(document["categories"])}
    boxes = np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4)
    _check_boxes(boxes)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([r["score"] for r in results], np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is no finite number")
    return Stored(
        np.array([rows[r["image_id"]] for r in results], np.int64),
        np.array([labels[r["category_id"]] for r in results], np.int64),
        scores,
        boxes,
    )


def _check_boxes(boxes: np.ndarray) -> None:
    """Refuse boxes [N, 4] xywh that are not finite, or have a negative side.

    Raises:
        ValueError: there is one.
    """
    if not (np.abs(boxes) <= LARGEST).all() or (boxes[:, 2:] < 0).any():
        raise ValueError("a box has a negative side, or a number that is not finite")


def candidates(stored: Stored, truth: Truth, most: int = MOST, *, use_classes: bool = True) -> Candidates:
    """The best `most` detections of each image and class (with use_classes=False, of each image)."""
    classes = len(truth.classes) if use_classes else 1
    label, truth_label = stored.label * use_classes, truth.label * use_classes
    group = stored.image * classes + label
    place = place_in_group(group, stored.score)
    kept = np.flatnonzero(place < most)
    kept = kept[np.lexsort((place[kept], stored.image[kept], -stored.score[kept], label[kept]))]
    truth_group = truth.image * classes + truth_label
    pairs = pairs_of(group[kept], stored.boxes[kept], truth_group, truth.boxes, truth.crowd, least=THRESHOLDS[0])
    ordered = Stored(stored.image[kept], label[kept], stored.score[kept], stored.boxes[kept])
    return Candidates(ordered, place[kept], pairs, truth_label)


def judge_size(found: Candidates, truth: Truth, bounds: tuple[float, float] = AREAS[""]) -> Judged:
    """Match by COCO's rules, with boxes whose area lies within the bounds."""
    low, high = bounds
    ignored = truth.crowd | (truth.area < low) | (truth.area > high)
    matched = match(found.pairs, found.place, ignored, truth.crowd, THRESHOLDS)
    image, label, score, boxes = found.stored
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    other = (matched.truth < 0) & ((area < low) | (area > high))[:, None]
    hit = (matched.truth >= 0) & ~matched.ignored
    classes = len(truth.classes)
    return Judged(
        classes, image, label, score, hit, matched.ignored | other, matched.truth, wanted=~ignored, place=found.place
    )


def judge(results: list[dict[str, Any]], truth: Truth, document: dict[str, Any], metric: str = "map") -> Judged:
    """Match COCO results with the ground truth at all IoU thresholds, for one metric of `SIZES`."""
    return judge_size(candidates(as_stored(results, truth, document), truth), truth, SIZES[metric])


def judge_voc(stored: Stored, truth: Truth) -> Judged:
    """Match by VOC's rules (detlab.metrics.voc_ap): one threshold, each detection can only match its best box."""
    order = np.lexsort((-stored.score, stored.label))
    image, label, score, boxes = (part[order] for part in stored)
    classes, count = len(truth.classes), len(order)
    free = np.zeros(len(truth.label), bool)  # no crowd rules for the overlap; crowds count as difficult below
    pairs = pairs_of(image * classes + label, boxes, truth.image * classes + truth.label, truth.boxes, free)
    best_first = np.lexsort((pairs.truth, -pairs.iou, pairs.det))
    best = best_first[np.unique(pairs.det[best_first], return_index=True)[1]]
    best = best[pairs.iou[best] >= VOC_IOU]
    det, box = pairs.det[best], pairs.truth[best]
    uncounted = truth.crowd | truth.difficult if len(truth.difficult) else truth.crowd
    hit, dropped, matched = np.zeros((count, 1), bool), np.zeros((count, 1), bool), np.full((count, 1), -1)
    dropped[det[uncounted[box]]] = True
    det, box = det[~uncounted[box]], box[~uncounted[box]]
    first = np.unique(box, return_index=True)[1]  # of several detections on a box, the one with the highest score
    hit[det[first]] = True
    matched[det[first], 0] = box[first]
    return Judged(classes, image, label, score, hit, dropped, matched, wanted=~uncounted)


def read_stored(folder: Path) -> tuple[Truth, Stored] | None:
    """The stored ground truth and detections of a run; None if one is missing.

    Raises:
        ReportError: one is damaged; the message names it.
    """
    first, second = folder / "ground_truth.json", folder / "detections.json"
    if not first.exists() or not second.exists():
        return None
    with _sound(first):
        document = read_json_bounded(first)
        if not document["images"]:
            return None
        truth = as_truth(document)
    with _sound(second):
        return truth, as_stored(read_json_bounded(second), truth, document)


def read_judged(folder: Path, metrics: Sequence[str] = ("map",)) -> tuple[Truth, dict[str, Judged]] | None:
    """Ground truth and matched detections of a run by metric of `SIZES`; None if the run stored none.

    Raises:
        ReportError: see `read_stored`.
    """
    found = read_stored(folder)
    if found is None:
        return None
    truth, stored = found
    best = candidates(stored, truth)
    return truth, {metric: judge_size(best, truth, SIZES[metric]) for metric in metrics}


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
