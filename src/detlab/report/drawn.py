"""All metrics of a run on resampled test images, cached in the run folder so that a second report takes seconds.

M metrics, B resamples, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detlab.metrics.matching import AREAS
from detlab.report.bootstrap import (
    ap_by_threshold,
    draw_weights,
    mean_known,
    resampled_ap,
    resampled_recall,
    voc07_steps,
    voc12_steps,
)
from detlab.report.detections import MOST, Judged, Truth, precision_at, read_stored, read_truth
from detlab.report.matched import as_arrays, digest_of, from_arrays, keep_copy, match_all, read_copy

IOU_50, IOU_75 = 0, 5  # rows of .50 and .75 among the thresholds
DETECTIONS_AT, PROPOSALS_AT = re.compile(r"mar_([0-9]{1,6})"), re.compile(r"ar_([0-9]{1,6})")
VOC = {"map_voc07": voc07_steps, "map_voc12": voc12_steps}


@dataclass
class Drawn:
    """A run's metrics on its test split and on resamples of it."""

    values: dict[str, np.ndarray]  # {metric: [B + 1]}, the first on the split itself; NaN where a resample has no box
    image_ids: np.ndarray
    classes: list[str]
    digest: str  # `Truth.digest`: equal for runs tested on the same data
    boxes: dict[str, int]  # {metric of a size or class: number of its boxes}
    precision: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [101] at IoU 0.5; empty without classes


@dataclass(frozen=True)
class _Wanted:
    """What must be matched for a run's metrics."""

    detections: tuple[int, ...]  # per image and class, ascending; empty without AP
    proposals: tuple[int, ...]  # per image, ascending; empty without AR of proposals
    voc: tuple[str, ...]

    @classmethod
    def of(cls, metrics: Sequence[str]) -> _Wanted:
        at = sorted(int(m[1]) for name in metrics if (m := DETECTIONS_AT.fullmatch(name)))
        proposals = sorted(int(m[1]) for name in metrics if (m := PROPOSALS_AT.fullmatch(name)))
        coco = tuple(at or [MOST]) if "map" in metrics else ()
        return cls(coco, tuple(proposals), tuple(name for name in VOC if name in metrics))


def read_drawn(folder: Path, metrics: Sequence[str], resamples: int) -> Drawn | None:
    """Metrics of a run on resamples of its test images; None if it stored no detections.

    Args:
        folder: run folder.
        metrics: names of the metrics in its result; those that can be resampled are computed.
        resamples: number of resamples B.

    Raises:
        ReportError: the stored files are damaged.
    """
    wanted = _Wanted.of(metrics)
    digest = digest_of(folder, wanted, resamples)
    if not digest:
        return None
    name = f"resampled-{resamples}"
    if (kept := read_copy(folder, name, digest)) is not None:
        return _from_arrays(kept)
    found = read_matched(folder, wanted)
    if found is None:
        return None
    truth, judged = found
    drawn = _draw(truth, judged, wanted, draw_weights(len(truth.image_ids), resamples))
    keep_copy(folder, name, digest, _as_arrays(drawn))
    return drawn


def read_matched(folder: Path, wanted: _Wanted) -> tuple[Truth, dict[str, Judged]] | None:
    """Annotations and matched detections of a run; None if it stored none.

    Raises:
        ReportError: the stored files are damaged.
    """
    digest = digest_of(folder, wanted)
    if (kept := read_copy(folder, "matched", digest)) is not None:
        truth = read_truth(folder / "ground_truth.json")
        return None if truth is None else (truth, from_arrays(kept))
    stored = read_stored(folder)
    if stored is None:
        return None
    most, proposals = (max(numbers, default=0) for numbers in (wanted.detections, wanted.proposals))
    judged = match_all(*stored, most, proposals, voc=bool(wanted.voc))
    keep_copy(folder, "matched", digest, as_arrays(judged))
    return stored[0], judged


def _draw(truth: Truth, judged: Mapping[str, Judged], wanted: _Wanted, weights: np.ndarray) -> Drawn:
    values, boxes = {}, {}
    for metric, value in _values(truth, judged, wanted, weights):
        values[metric] = value
    for name, verdicts in judged.items():
        boxes[name] = int(verdicts.wanted.sum())
    by_class = np.bincount(truth.label[~truth.crowd], minlength=len(truth.classes))
    boxes |= {f"ap/{name}": int(n) for name, n in zip(truth.classes, by_class, strict=True)}
    precision = precision_at(judged["map"], truth) if "map" in judged else np.zeros(0)
    return Drawn(values, truth.image_ids, truth.classes, truth.digest, boxes, precision)


def _values(
    truth: Truth, judged: Mapping[str, Judged], wanted: _Wanted, weights: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    for end in AREAS if wanted.detections else ():
        ap = ap_by_threshold(judged[f"map{end}"], truth, weights)
        yield f"map{end}", mean_known(ap.mean(2), 1)
        most = wanted.detections[-1]
        if end:
            yield f"mar{end}", resampled_recall(judged[f"map{end}"], truth, weights, most)
            continue
        yield "map_50", mean_known(ap[..., IOU_50], 1)
        yield "map_75", mean_known(ap[..., IOU_75], 1)
        for k, name in enumerate(truth.classes):
            yield f"ap/{name}", ap[:, k].mean(1)
        for limit in wanted.detections:
            yield f"mar_{limit}", resampled_recall(judged["map"], truth, weights, limit)
    for limit in wanted.proposals:
        yield f"ar_{limit}", resampled_recall(judged["ar"], truth, weights, limit)
    for end in AREAS if wanted.proposals else ():
        if end:
            yield f"ar{end}", resampled_recall(judged[f"ar{end}"], truth, weights, wanted.proposals[-1])
    for metric in wanted.voc:
        ap = resampled_ap(judged["voc"], truth, weights, VOC[metric])
        yield metric, mean_known(ap, 1)
        for k, name in enumerate(truth.classes):
            yield f"{metric.removeprefix('m')}/{name}", ap[:, k]


def _as_arrays(drawn: Drawn) -> dict[str, np.ndarray]:
    return {
        "metrics": np.array(list(drawn.values)),
        "values": np.array(list(drawn.values.values())),
        "image_ids": drawn.image_ids,
        "classes": np.array(drawn.classes),
        "split": np.array(drawn.digest),
        "box_names": np.array(list(drawn.boxes)),
        "box_counts": np.array(list(drawn.boxes.values()), np.int64),
        "precision": drawn.precision,
    }


def _from_arrays(kept: Mapping[str, np.ndarray]) -> Drawn:
    return Drawn(
        values=dict(zip(kept["metrics"].tolist(), kept["values"], strict=True)),
        image_ids=kept["image_ids"],
        classes=kept["classes"].tolist(),
        digest=str(kept["split"]),
        boxes=dict(zip(kept["box_names"].tolist(), kept["box_counts"].tolist(), strict=True)),
        precision=kept["precision"],
    )
