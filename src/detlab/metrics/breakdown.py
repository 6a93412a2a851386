"""Parts of an error report besides error shares: confusion of classes, errors by score, recall by size and stage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from detlab.metrics.coco_ap import IOU_50, IOU_75, precision_recall
from detlab.metrics.collected import Found, as_one_class
from detlab.metrics.error_kinds import IGNORED, KINDS, TRUE, Verdicts, error_shares, verdicts
from detlab.metrics.matching import SIDES, THRESHOLDS, match, pairs_of, place_in_group
from detlab.metrics.proposal_recall import proposal_recall

COVERAGES = (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # bin edges: IoU of a box with its best anchor
SCORES = np.linspace(0, 1, 21)  # bin edges


def confusion(found: Found, score_threshold: float) -> dict[str, Any]:
    """Counts [K + 1, K + 1]: rows are true classes, columns predicted classes; the last of each is background.

    Detections with at least the threshold's score are matched by falling score, each to the free box of highest IoU
    (0.5 or more) of any class. The last row counts unmatched detections, the last column unmatched boxes.
    """
    truth = found.truth
    kept = found.rows[:, 4] >= score_threshold
    rows, images = found.rows[kept], found.images[kept]
    crowd, label = truth.crowd.numpy(), truth.labels.numpy()
    pairs = pairs_of(images, rows[:, :4], truth.box_image.numpy(), truth.boxes.numpy(), crowd, least=0.5)
    matched = match(pairs, place_in_group(images, rows[:, 4]), crowd, crowd, np.array([0.5]))
    at, counted = matched.truth[:, 0], ~matched.ignored[:, 0]
    classes = len(truth.class_names)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    true_class = np.where(at >= 0, label[at], classes) if len(label) else np.full(len(at), classes)
    np.add.at(table, (true_class[counted], rows[counted, 5].astype(np.int64)), 1)
    free = ~crowd
    free[at[counted & (at >= 0)]] = False
    np.add.at(table, (label[free], classes), 1)
    return {
        "score_threshold": score_threshold,
        "classes": [*truth.class_names, "background"],
        "counts": table.tolist(),
    }


def best_f1(found: Found, judged: Verdicts) -> dict[str, float]:
    """The score threshold of the highest F1 at IoU 0.5, over all classes together, with F1, precision and recall."""
    kept = judged.kind != IGNORED
    total = int((~found.truth.crowd).sum())
    if not kept.any() or not total:
        return {"score": 0.5, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    order = np.argsort(-found.rows[kept, 4], kind="stable")
    scores, true = found.rows[kept, 4][order], (judged.kind[kept][order] == TRUE).cumsum()
    number = np.arange(1, len(true) + 1)
    f1 = np.where(np.append(scores[1:] != scores[:-1], True), 2 * true / (number + total), 0)  # last of ties
    at = int(f1.argmax())
    return {
        "score": float(scores[at]),
        "f1": float(f1[at]),
        "precision": float(true[at] / number[at]),
        "recall": float(true[at] / total),
    }


def score_histograms(found: Found, judged: Verdicts) -> dict[str, Any]:
    """Number of detections by score in twenty bins: true positives, and false positives by kind.

    Scores above 1, which linear outputs give (YOLOv1), count in the last bin.
    """
    kinds, scores = {"true": TRUE, **KINDS}, found.rows[:, 4].clip(0, 1)
    counts = {n: np.histogram(scores[judged.kind == k], SCORES)[0].tolist() for n, k in kinds.items()}
    return {"edges": SCORES.round(2).tolist(), "counts": counts}


def pr_curves(found: Found, max_detections: Sequence[int]) -> dict[str, Any]:
    """Precision at 101 recall points for every class with ground truth and every IoU threshold of COCO."""
    precision = precision_recall(found, max_detections).precision[..., 0].round(4)  # [T, R, K]
    names = found.truth.class_names
    defined = [k for k in range(len(names)) if precision[0, 0, k] > -1]
    return {
        "iou": THRESHOLDS.round(2).tolist(),
        "recall": "0, 0.01, .. 1",
        "precision": {names[k]: precision[:, :, k].tolist() for k in defined},
    }


def hits(found: Found, *, use_classes: bool = True) -> np.ndarray:
    """[G, 10] bool: the boxes that a detection of any score matches at each IoU threshold of COCO."""
    truth, classes = found.truth, len(found.truth.class_names) if use_classes else 1
    crowd = truth.crowd.numpy()
    group = found.images * classes + found.rows[:, 5].astype(np.int64) * use_classes
    truth_group = truth.box_image.numpy() * classes + truth.labels.numpy() * use_classes
    pairs = pairs_of(group, found.rows[:, :4], truth_group, truth.boxes.numpy(), crowd, least=THRESHOLDS[0])
    matched = match(pairs, place_in_group(group, found.rows[:, 4]), crowd, crowd, THRESHOLDS)
    table = np.zeros((len(crowd), len(THRESHOLDS)), bool)
    for t in range(len(THRESHOLDS)):
        at = matched.truth[:, t]
        table[at[at >= 0], t] = True
    return table


def recall_by(found: Found, values: np.ndarray, edges: Sequence[float]) -> list[dict[str, Any]]:
    """Recall of boxes by bins of a value (lower edge included, the last edge as well); crowds are left out.

    Args:
        values: [G], such as each box's size or its IoU with its best anchor.
        edges: of the bins, ascending.
    """
    table, crowd = hits(found), found.truth.crowd.numpy()
    rows = []
    for low, high in pairwise(edges):
        inside = (values >= low) & ((values < high) | (high == edges[-1])) & ~crowd
        if inside.any():
            part = table[inside]
            recall = {"recall_50": part[:, IOU_50], "recall_75": part[:, IOU_75], "recall": part}
            rows.append(
                {"from": low, "to": None if np.isinf(high) else high, "boxes": int(inside.sum())}
                | {name: float(v.mean()) for name, v in recall.items()}
            )
    return rows


def recall_by_size(found: Found) -> list[dict[str, Any]]:
    """Recall by the square root of the annotation's area, px."""
    return recall_by(found, np.sqrt(found.truth.area.numpy()), SIDES)


def recall_by_stage(found: Found, proposed: Found) -> dict[str, Any]:
    """Class-agnostic recall of proposals and of final boxes, and shares of boxes lost at each stage (IoU 0.5)."""
    crowd = found.truth.crowd.numpy()
    first, last = hits(proposed, use_classes=False)[:, IOU_50], hits(found)[:, IOU_50]
    total = max(1, int((~crowd).sum()))
    agnostic = as_one_class(found)
    recall = {
        "proposals": proposal_recall(proposed, (10, 100, 300, 1000)),
        "final": proposal_recall(agnostic, (10, 100)),
    }
    recall["proposals"]["recall_50"] = float(first[~crowd].mean()) if total else 0.0
    recall["final"]["recall_50"] = float(hits(agnostic)[~crowd, IOU_50].mean()) if total else 0.0
    return {
        **recall,
        "boxes": {
            "found": float((last & ~crowd).sum() / total),
            "proposed, not found": float((first & ~last & ~crowd).sum() / total),
            "not proposed": float((~first & ~last & ~crowd).sum() / total),
        },
    }


class ImageErrors(NamedTuple):
    """The errors in one image, at a score threshold."""

    id: int
    name: str
    boxes: np.ndarray  # [n, 4] false detections, original px
    labels: np.ndarray  # [n]
    scores: np.ndarray  # [n]
    kinds: tuple[str, ...]  # [n] names of KINDS
    unfound: np.ndarray  # [m, 4] boxes that no detection matched
    unfound_labels: np.ndarray  # [m]
    right: np.ndarray  # [k, 4] true positives


def worst_images(found: Found, count: int, score_threshold: float) -> list[ImageErrors]:
    """The images with most errors, false detections and unmatched boxes, among detections from the threshold on.

    Of images with equally many, the one with the higher sum of the false detections' scores comes first.
    """
    kept = found.rows[:, 4] >= score_threshold
    found = found._replace(rows=found.rows[kept], images=found.images[kept])
    judged, truth = verdicts(found), found.truth
    names = {number: name for name, number in KINDS.items()}
    false = np.isin(judged.kind, list(names))
    unfound = ~judged.found & ~truth.crowd.numpy()
    ids, box_image = truth.image_ids.numpy(), truth.box_image.numpy()
    place = {int(i): n for n, i in enumerate(ids)}
    tally = np.zeros((len(ids), 2))
    np.add.at(tally[:, 0], [place[int(i)] for i in found.images[false]], 1)
    np.add.at(tally[:, 0], [place[int(i)] for i in box_image[unfound]], 1)
    np.add.at(tally[:, 1], [place[int(i)] for i in found.images[false]], found.rows[false, 4])
    chosen = [n for n in np.lexsort((-tally[:, 1], -tally[:, 0]))[:count] if tally[n, 0]]
    worst = []
    for n in chosen:
        here, lost = false & (found.images == ids[n]), unfound & (box_image == ids[n])
        good = (judged.kind == TRUE) & (found.images == ids[n])
        worst.append(
            ImageErrors(
                id=int(ids[n]),
                name=truth.file_names[n],
                boxes=found.rows[here, :4],
                labels=found.rows[here, 5].astype(np.int64),
                scores=found.rows[here, 4],
                kinds=tuple(names[k] for k in judged.kind[here]),
                unfound=truth.boxes.numpy()[lost],
                unfound_labels=truth.labels.numpy()[lost],
                right=found.rows[good, :4],
            )
        )
    return worst


def error_report(
    found: Found,
    *,
    score_threshold: float | None = None,
    max_detections: Sequence[int] = (1, 10, 100),
    coverage: np.ndarray | None = None,
    proposed: Found | None = None,
) -> dict[str, Any]:
    """Where AP is lost, as plain numbers; for a class-agnostic detector give ground truth of one class.

    Args:
        found: detections and ground truth.
        score_threshold: of the confusion matrix; None for the score of the best F1.
        max_detections: numbers of detections as for the AP.
        coverage: [G] IoU of every box with its best anchor, where the detector has anchors.
        proposed: proposals of an earlier stage, where there is one.
    """
    judged = verdicts(found)
    best = best_f1(found, judged)
    report = error_shares(found, judged) | {
        "best_f1": best,
        "confusion": confusion(found, best["score"] if score_threshold is None else score_threshold),
        "scores": score_histograms(found, judged),
        "recall_by_size": recall_by_size(found),
        "pr_curves": pr_curves(found, max_detections),
    }
    if coverage is not None:
        report["recall_by_anchor_iou"] = recall_by(found, coverage, COVERAGES)
    if proposed is not None:
        report["stages"] = recall_by_stage(found, proposed)
    return report
