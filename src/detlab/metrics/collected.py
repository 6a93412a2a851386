"""Detections of a whole split as flat arrays, gathered once over the processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torchmetrics import Metric

from detlab.structures import Detections, GroundTruth

COLUMNS = 6  # x1, y1, x2, y2, score, label


class CollectedDetections(Metric):
    """Keeps detections by image id; every process's `compute` returns the same.

    Each update stores, per image, its id and its rows. `compute` gathers both once, drops images a padded sampler
    gave twice (the first process keeps them), orders by image id, works on rank 0 and broadcasts the result.

    Args:
        ground_truth: the split's annotations.
    """

    full_state_update = False

    def __init__(self, ground_truth: GroundTruth) -> None:
        # torchmetrics' own synchronisation is off: it gathers uneven lists tensor by tensor.
        super().__init__(sync_on_compute=False)
        self.ground_truth = ground_truth
        self._ids: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._merged: tuple[np.ndarray, np.ndarray] | None = None

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

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows [N, 6], image id of each [N]) over all processes, by image id, then order of emission.

        Collective: every process must call it.

        Raises:
            ValueError: an image id that the ground truth lacks.
        """
        if self._merged is None:
            ids = np.concatenate(self._ids) if self._ids else np.zeros(0, np.int64)
            counts = np.concatenate(self._counts) if self._counts else np.zeros(0, np.int64)
            rows = np.concatenate(self._rows) if self._rows else np.zeros((0, COLUMNS))
            parts = _gather((ids, counts, rows))
            self._merged = _merge(parts)
            self.seen = np.unique(np.concatenate([part[0] for part in parts]))
            unknown = np.setdiff1d(self.seen, self.ground_truth.image_ids.numpy())
            if len(unknown):
                raise ValueError(
                    f"Detections came for image id {unknown[0]}, which the ground truth lacks; both must be of one "
                    f"split."
                )
        return self._merged

    def missing(self) -> int:
        """Images of the ground truth that no process gave; they count as images without detections."""
        self.merged()
        return len(self.ground_truth.image_ids) - len(self.seen)

    def coco_results(self) -> list[dict[str, Any]]:
        """All detections as COCO results: image_id, category_id, bbox (x, y, w, h), score."""
        rows, images = self.merged()
        categories = self.ground_truth.category_ids
        return [
            {
                "image_id": int(image),
                "category_id": int(categories[int(row[5])]),
                "bbox": [float(v) for v in (row[0], row[1], row[2] - row[0], row[3] - row[1])],
                "score": float(row[4]),
            }
            for row, image in zip(rows, images, strict=True)
        ]

    def on_rank_zero(self, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The result of `work`, done on rank 0 and sent to all."""
        if not _together():
            return work()
        box: list[Any] = [None]
        if distributed.get_rank() == 0:
            try:
                box[0] = work()
            except Exception as error:  # sent on, so that no other rank waits for ever
                box[0] = error
        distributed.broadcast_object_list(box, src=0)
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _gather(part: tuple[np.ndarray, ...]) -> list[tuple[np.ndarray, ...]]:
    if not _together():
        return [part]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return parts


def _merge(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their image ids, each image from the first part that has it, ordered by id."""
    ids = np.concatenate([p[0] for p in parts])
    counts = np.concatenate([p[1] for p in parts])
    rows = np.concatenate([p[2] for p in parts])
    starts = np.concatenate([[0], counts.cumsum()])[:-1]
    unique, first = np.unique(ids, return_index=True)  # the first occurrence of each, in ascending order of id
    pieces = [np.arange(starts[i], starts[i] + counts[i]) for i in first]
    index = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    return rows[index.astype(np.int64)], np.repeat(unique, counts[first])
