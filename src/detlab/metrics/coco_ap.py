"""COCO average precision (cocodataset/cocoapi, cocoeval.py), through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from detlab.metrics.collected import CollectedDetections
from detlab.structures import GroundTruth

AREAS = ("", "_small", "_medium", "_large")  # the order of COCO's area ranges
IOU_50, IOU_75 = 0, 5  # rows of .50 and .75 among .50:.05:.95


class CocoAP(CollectedDetections):
    """AP over IoU .50:.05:.95, at .50 and .75, by size and by class; AR at several numbers of detections.

    A class without ground truth is absent from the result. With ground truth and no detection at all every value is 0,
    where pycocotools stops.

    Args:
        ground_truth: the split's annotations.
        max_detections: per image and class; AP is taken at the largest.
    """

    def __init__(self, ground_truth: GroundTruth, max_detections: Sequence[int] = (1, 10, 100)) -> None:
        super().__init__(ground_truth)
        self.max_detections = tuple(sorted(max_detections))

    def compute(self) -> dict[str, float]:
        """map, map_50, map_75, map_small .., mar_1 .., and ap/<class> by name; undefined values are absent."""
        self.merged()
        return self.on_rank_zero(self._compute)

    def _compute(self) -> dict[str, float]:
        evaluation = evaluate(self.ground_truth, *self.merged(), self.max_detections, use_classes=True)
        precision, recall = evaluation["precision"], evaluation["recall"]  # [T, R, K, 4, M], [T, K, 4, M]
        values = {"map": mean_defined(precision[:, :, :, 0, -1])}
        values["map_50"] = mean_defined(precision[IOU_50, :, :, 0, -1])
        values["map_75"] = mean_defined(precision[IOU_75, :, :, 0, -1])
        for i, area in list(enumerate(AREAS))[1:]:
            values[f"map{area}"] = mean_defined(precision[:, :, :, i, -1])
        for i, most in enumerate(self.max_detections):
            values[f"mar_{most}"] = mean_defined(recall[:, :, 0, i])
        for i, area in list(enumerate(AREAS))[1:]:
            values[f"mar{area}"] = mean_defined(recall[:, :, i, -1])
        for k, name in enumerate(self.ground_truth.class_names):
            values[f"ap/{name}"] = mean_defined(precision[:, :, k, 0, -1])
        return {name: value for name, value in values.items() if value is not None}


def evaluate(
    truth: GroundTruth,
    rows: np.ndarray,
    images: np.ndarray,
    max_detections: Sequence[int],
    *,
    use_classes: bool,
) -> dict[str, np.ndarray]:
    """COCO's precision [T, R, K, areas, M] and recall [T, K, areas, M]; -1 where undefined.

    Args:
        truth: annotations.
        rows: detections [N, 6]: x1, y1, x2, y2, score, label.
        images: image id of each [N].
        max_detections: ascending.
        use_classes: False ignores classes (K = 1).
    """
    reference = COCO(_document(truth))
    width = rows[:, 2:4] - rows[:, :2]
    # Category ids here are labels + 1: names and ids of the annotation file may repeat or be 0.
    table = np.column_stack([images, rows[:, :2], width, rows[:, 4], rows[:, 5] + 1])
    found = COCO()
    found.dataset = {
        "images": reference.dataset["images"],
        "categories": reference.dataset["categories"],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(r[0]),
                "bbox": [r[1], r[2], r[3], r[4]],
                "area": r[3] * r[4],
                "score": r[5],
                "category_id": int(r[6]),
                "iscrowd": 0,
            }
            for i, r in enumerate(table.tolist())
        ],
    }
    found.createIndex()
    evaluation = COCOeval_faster(reference, found, iouType="bbox", print_function=_silent)
    evaluation.params.maxDets = list(max_detections)
    evaluation.params.useCats = int(use_classes)
    evaluation.evaluate()
    evaluation.accumulate()
    shape = (10, 101, len(truth.class_names) if use_classes else 1, len(AREAS), len(max_detections))
    precision = np.asarray(evaluation.eval["precision"]).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"]).reshape(shape[:1] + shape[2:])
    return {"precision": precision, "recall": recall}


def _document(truth: GroundTruth) -> dict[str, Any]:
    sizes = truth.boxes[:, 2:] - truth.boxes[:, :2]
    annotations = zip(
        truth.box_image.tolist(),
        truth.boxes[:, :2].tolist(),
        sizes.tolist(),
        truth.labels.tolist(),
        truth.area.tolist(),
        truth.crowd.tolist(),
        strict=True,
    )
    return {
        "info": {},
        "images": [
            {"id": int(i), "height": int(h), "width": int(w)}
            for i, (h, w) in zip(truth.image_ids.tolist(), truth.sizes.tolist(), strict=True)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(truth.class_names)],
        "annotations": [
            {
                "id": number,  # from 1: COCO takes id 0 for "unmatched"
                "image_id": image,
                "bbox": [*corner, *size],
                "area": area,
                "category_id": label + 1,
                "iscrowd": int(crowd),
                "ignore": 0,
            }
            for number, (image, corner, size, label, area, crowd) in enumerate(annotations, start=1)
        ],
    }


def mean_defined(values: np.ndarray) -> float | None:
    """Mean of the defined values; None where there is none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _silent(*_: object) -> None:
    return
