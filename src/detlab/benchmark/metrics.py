"""target=metrics: time of COCO AP of a validation set (update, gather, compute) against torchmetrics."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from detlab.benchmark.options import OptionError
from detlab.metrics.coco_ap import CocoAP
from detlab.metrics.matching import RECALLS, THRESHOLDS
from detlab.tensors.structures import Detections, GroundTruth

PARTS = 16  # images per update on either side
Backend = Literal["pycocotools", "faster_coco_eval"]
BACKENDS: dict[str, Backend] = {"pycocotools": "pycocotools", "faster_coco_eval": "faster_coco_eval"}


def run(
    images: int = 5000,
    detections: int = 100,
    classes: int = 80,
    boxes: int = 7,
    repeats: int = 1,
    backend: str = "pycocotools",
    seed: int = 0,
) -> dict[str, Any]:
    """Time both sides in turn on the same detections; theirs is torchmetrics' MeanAveragePrecision.

    Args:
        images: images of the validation set (COCO val2017: 5000).
        detections: detections per image.
        classes: number of classes (COCO: 80).
        boxes: ground-truth boxes per image (COCO val2017: 7.3).
        repeats: measurements of each side, alternating.
        backend: backend of torchmetrics: pycocotools (its default) or faster_coco_eval; the package must be installed.
        seed: seed of the random boxes.

    Raises:
        RuntimeError: the two sides compute different APs.
    """
    if backend not in BACKENDS:
        raise OptionError(f"backend={backend} is not known; use one of {', '.join(BACKENDS)}.")
    truth, found = made(images, detections, classes, boxes, seed)
    sides: dict[str, Callable[[], float]] = {
        "detlab": _ours(truth, found),
        f"torchmetrics ({backend})": _theirs(truth, found, BACKENDS[backend]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float] = {}
    values: dict[str, float] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            watch = MemoryWatch()
            start = time.perf_counter()
            values[name] = side()
            seconds[name].append(time.perf_counter() - start)
            memory[name] = max(memory.get(name, 0.0), watch.stop())
    print(f"{images} images x {detections} detections x {classes} classes, {boxes} boxes per image, update + compute")
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    )
    for name in sides:
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}" if repeats > 1 else "one run"
        print(
            f"{name:26} {statistics.median(seconds[name]):8.2f} s ({spread})  "
            f"{memory[name]:7.0f} MB more at the peak  map {values[name]:.6f}"
        )
    ours, theirs = (statistics.median(v) for v in seconds.values())
    first, second = values.values()
    if abs(first - second) > 1e-6:  # torchmetrics keeps boxes and results in float32
        raise RuntimeError(f"The two sides disagree: {values}.")
    return {"ratio": ours / theirs, "seconds": seconds, "peak_mb": memory, "map": values}


def made(images: int, detections: int, classes: int, boxes: int, seed: int) -> tuple[GroundTruth, Detections]:
    """A split with random boxes of all sizes, and detections: some close to a box of their class, the others random."""
    rng = np.random.default_rng(seed)
    count = images * boxes
    corner, side = rng.uniform(0, 500, (count, 2)), np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    truth_boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32).reshape(images, boxes, 4)
    labels = rng.integers(0, classes, (images, boxes))
    which = rng.integers(0, boxes, (images, detections))
    near = np.take_along_axis(truth_boxes, which[..., None], axis=1)
    sides = np.tile(near[..., 2:] - near[..., :2], 2)
    moved = near + rng.normal(0, 0.12, near.shape) * sides
    moved[..., 2:] = np.maximum(moved[..., 2:], moved[..., :2] + 1)
    right = rng.random((images, detections)) < 0.3
    found_labels = np.where(right, np.take_along_axis(labels, which, axis=1), rng.integers(0, classes, which.shape))
    scores = rng.random(which.shape) * np.where(right, 1.0, 0.6)
    ids = torch.arange(1, images + 1)
    flat = torch.from_numpy(truth_boxes.reshape(-1, 4).astype(np.float64))
    truth = GroundTruth(
        image_ids=ids,
        sizes=torch.full((images, 2), 800),
        box_image=ids.repeat_interleave(boxes),
        boxes=flat,
        labels=torch.from_numpy(labels.reshape(-1)),
        area=(flat[:, 2:] - flat[:, :2]).prod(1),
        crowd=torch.zeros(count, dtype=torch.bool),
        difficult=torch.zeros(count, dtype=torch.bool),
        class_names=tuple(f"class {k}" for k in range(classes)),
        category_ids=tuple(range(classes)),
        file_names=tuple(str(i) for i in range(images)),
    )
    order = np.argsort(-scores, axis=1)
    fields = (moved.astype(np.float32), scores.astype(np.float32), found_labels)
    sorted_fields = [np.take_along_axis(f, order[..., None] if f.ndim == 3 else order, axis=1) for f in fields]
    return truth, Detections(*map(torch.from_numpy, sorted_fields))


def _ours(truth: GroundTruth, found: Detections) -> Callable[[], float]:
    batches = [slice(i, i + PARTS) for i in range(0, len(truth.image_ids), PARTS)]
    given = [(Detections(*(field[part] for field in found)), truth.image_ids[part]) for part in batches]

    def side() -> float:
        metric = CocoAP(truth)
        for batch in given:
            metric.update(*batch)
        return metric.compute()["map"]

    return side


def _theirs(truth: GroundTruth, found: Detections, backend: Backend) -> Callable[[], float]:
    from torchmetrics.detection import MeanAveragePrecision

    # torchmetrics rounds COCO's recall thresholds to float32, so a recall of exactly 0.29 may miss its point. With
    # COCO's own thresholds both sides agree.
    per = len(truth.labels) // len(truth.image_ids)
    boxes, labels = truth.boxes.float().unflatten(0, (-1, per)), truth.labels.unflatten(0, (-1, per))
    predicted = [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(*found, strict=True)]
    target = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]

    def side() -> float:
        metric = MeanAveragePrecision(
            iou_thresholds=THRESHOLDS.tolist(), rec_thresholds=RECALLS.tolist(), backend=backend
        )
        for i in range(0, len(target), PARTS):
            metric.update(predicted[i : i + PARTS], target[i : i + PARTS])
        return float(metric.compute()["map"])

    return side


class MemoryWatch:
    """Resident memory of the process, sampled every 20 ms by a thread; 0 on systems without /proc."""

    def __init__(self) -> None:
        self.start = self.peak = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Peak memory above the start, in MB."""
        self._done.set()
        self._thread.join()
        return max(self.peak, _resident()) - self.start

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, _resident())


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
