"""Detections of a whole split as flat arrays, gathered once over the processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, distributed
from torchmetrics import Metric

from detlab.tensors.ranks import of_all, together
from detlab.tensors.structures import Detections, GroundTruth

COLUMNS = 6  # x1, y1, x2, y2, score, label
PER_BOX = ("box_image", "boxes", "labels", "area", "crowd", "difficult")  # of GroundTruth


class Found(NamedTuple):
    """All detections of a split with its annotations; the input of every measure."""

    truth: GroundTruth
    rows: np.ndarray  # [N, 6] float64: x1, y1, x2, y2 (original px), score, label; by image id, then emission
    images: np.ndarray  # [N] image id of each row


Measure = Callable[[Found], dict[str, float]]  # values by name; undefined ones are absent


class Judged(Protocol):
    """The attributes of the data module that a measure may read."""

    class_names: tuple[str, ...]
    max_detections: tuple[int, ...]
    voc_ap: str | None


class CollectedDetections(Metric):
    """Keeps detections by image id; `compute` returns the same values in every process.

    Each update stores the id and the detections of every image. `compute` gathers both once, drops images that a padded
    sampler gave twice (the first process's are kept), sorts by image id, evaluates on rank 0 and broadcasts the result.

    Args:
        ground_truth: the split's annotations.
        measures: functions of all detections, whose values are joined.
        partial: evaluate only the images that were given. False raises when an image of the split is missing.
    """

    full_state_update = False

    def __init__(self, ground_truth: GroundTruth, measures: Sequence[Measure] = (), *, partial: bool = False) -> None:
        # torchmetrics' own synchronisation is off: it gathers uneven lists tensor by tensor.
        super().__init__(sync_on_compute=False)
        self.ground_truth, self.measures, self.partial = ground_truth, tuple(measures), partial
        self._ids: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._merged: Found | None = None

    def reset(self) -> None:
        """Forget all detections."""
        super().reset()
        self._ids, self._counts, self._rows, self._merged = [], [], [], None

    def update(self, detections: Detections, ids: Tensor) -> None:
        """Add the detections of a batch (boxes in original pixels) and its image ids [B]."""
        real = detections.real
        rows = torch.cat([detections.boxes, detections.scores[..., None], detections.labels[..., None].float()], dim=2)
        self._ids.append(ids.cpu().numpy())
        self._counts.append(real.sum(1).cpu().numpy())
        self._rows.append(rows[real].double().cpu().numpy())
        self._merged = None

    def compute(self) -> dict[str, float]:
        """The values of all measures by name.

        Raises:
            ValueError: the ground truth lacks an image, or, unless `partial`, an image was never given.
        """
        found = self.merged()
        return self.on_rank_zero(lambda: {k: v for measure in self.measures for k, v in measure(found).items()})

    def merged(self) -> Found:
        """All detections of all processes, by image id, then in the order they were given; all processes must call it.

        Raises:
            ValueError: the ground truth lacks an image, or, unless `partial`, an image was never given.
        """
        if self._merged is None:
            ids = np.concatenate(self._ids) if self._ids else np.zeros(0, np.int64)
            counts = np.concatenate(self._counts) if self._counts else np.zeros(0, np.int64)
            rows = np.concatenate(self._rows) if self._rows else np.zeros((0, COLUMNS))
            self._merged = self._judged(*_merge(of_all((ids, counts, rows))))
        return self._merged

    def on_rank_zero(self, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Run `work` on rank 0 only; its result is returned, or its error raised, in every process."""
        if not together():
            return work()
        box: list[Any] = [None]
        if distributed.get_rank() == 0:
            try:
                box[0] = work()
            except Exception as error:  # sent to all ranks, so that none waits for ever
                box[0] = error
        distributed.broadcast_object_list(box, src=0)
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]

    def _judged(self, seen: np.ndarray, rows: np.ndarray, images: np.ndarray) -> Found:
        known = self.ground_truth.image_ids.numpy()
        unknown, missing = np.setdiff1d(seen, known), np.setdiff1d(known, seen)
        if len(unknown):
            raise ValueError(
                f"Detections came for image id {unknown[0]}, which the ground truth lacks; both must be of one split."
            )
        if len(missing) and not self.partial:
            raise ValueError(
                f"{len(missing)} of {len(known)} images of the split never came (first id {missing[0]}); a metric over "
                f"the rest would not be the split's. Give every image, or judge a part of it with partial=True."
            )
        return Found(_only(self.ground_truth, seen) if len(missing) else self.ground_truth, rows, images)


def coco_results(found: Found) -> list[dict[str, Any]]:
    """All detections as COCO results: image_id, category_id, bbox (x, y, w, h), score."""
    categories = found.truth.category_ids
    boxes = np.column_stack([found.rows[:, :2], found.rows[:, 2:4] - found.rows[:, :2]]).tolist()
    columns = found.images.tolist(), found.rows[:, 5].astype(int).tolist(), boxes, found.rows[:, 4].tolist()
    return [
        {"image_id": image, "category_id": int(categories[label]), "bbox": box, "score": score}
        for image, label, box, score in zip(*columns, strict=True)
    ]


def coco_truth(truth: GroundTruth) -> dict[str, Any]:
    """The split's annotations as a COCO document that pycocotools can read, with an extra key `difficult`."""
    ids, sizes = truth.image_ids.tolist(), truth.sizes.tolist()
    corners, sides = truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]
    columns = (truth.box_image, corners, sides, truth.labels, truth.area, truth.crowd.int(), truth.difficult.int())
    return {
        "images": [
            {"id": i, "file_name": name, "height": h, "width": w}
            for i, name, (h, w) in zip(ids, truth.file_names, sizes, strict=True)
        ],
        "categories": [{"id": i, "name": n} for i, n in zip(truth.category_ids, truth.class_names, strict=True)],
        "annotations": [
            {
                "id": number,  # from 1: pycocotools takes id 0 for "unmatched"
                "image_id": image,
                "bbox": corner + side,
                "category_id": int(truth.category_ids[label]),
                "area": area,
                "iscrowd": crowd,
                "difficult": difficult,
            }
            for number, (image, corner, side, label, area, crowd, difficult) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True), start=1
            )
        ],
    }


def as_one_class(found: Found) -> Found:
    """The same boxes with all classes merged into one, for class-agnostic detectors."""
    truth = found.truth._replace(
        labels=torch.zeros_like(found.truth.labels), class_names=("object",), category_ids=(1,)
    )
    return found._replace(truth=truth, rows=found.rows * np.array([1, 1, 1, 1, 1, 0.0]))


def _only(truth: GroundTruth, ids: np.ndarray) -> GroundTruth:
    """The annotations of the images with these ids."""
    images = np.isin(truth.image_ids.numpy(), ids)
    boxes = torch.from_numpy(np.isin(truth.box_image.numpy(), ids))
    return truth._replace(
        image_ids=truth.image_ids[torch.from_numpy(images)],
        sizes=truth.sizes[torch.from_numpy(images)],
        file_names=tuple(n for n, keep in zip(truth.file_names, images, strict=True) if keep),
        **{name: getattr(truth, name)[boxes] for name in PER_BOX},
    )


def _merge(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image ids seen, rows and their image ids, ordered by id; an image in several parts is taken from the first."""
    ids = np.concatenate([p[0] for p in parts])
    counts = np.concatenate([p[1] for p in parts])
    rows = np.concatenate([p[2] for p in parts])
    starts = np.concatenate([[0], counts.cumsum()])[:-1]
    seen, first = np.unique(ids, return_index=True)  # the first occurrence of each, in ascending order of id
    counts, starts = counts[first], starts[first]
    index = np.repeat(starts - np.concatenate([[0], counts.cumsum()])[:-1], counts) + np.arange(counts.sum())
    return seen, rows[index.astype(np.int64)], np.repeat(seen, counts)
