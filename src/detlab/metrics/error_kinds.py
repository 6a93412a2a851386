"""Where AP is lost (TIDE: A General Toolbox for Identifying Object Detection Errors, Bolya et al. 2020, section 2).

Every detection that matches no box at an IoU of 0.5 gets one kind of error: the first of KINDS that applies, as in the
paper's code. A box is missed if no detection matches it and no classification or localisation error refers to it. The
cost of a kind is the AP at 0.5 that is gained when only its errors are fixed. The gains do not add up to 1 - AP.

Differences from the paper's code (tidecv), as in COCO: a class without ground truth has no AP (there it counts as 0). A
detection on a crowd of its class, from an IoU of 0.5 on, is ignored (there, above 0.5, it is left out of the AP but
counted as an error). Recall is read at numpy's 101 points of 0..1 (there at k / 100, so that a recall of exactly 0.7
reaches one point more). Both take an IoU of exactly 0.5 for a match.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detlab.metrics.coco_ap import interpolated
from detlab.metrics.collected import Found
from detlab.metrics.matching import Pairs, match, pairs_of, place_in_group

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: t_f and t_b of the paper
TRUE, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND_HIT, BOTH, IGNORED = range(7)
KINDS = {  # of false detections, in the order in which they are tested
    "localisation": LOCALISATION,  # right class, IoU from t_b to t_f with its best box
    "classification": CLASSIFICATION,  # IoU from t_f on with a box of another class
    "duplicate": DUPLICATE,  # right class, IoU from t_f on, but the box is matched to a better-scored detection
    "background": BACKGROUND_HIT,  # IoU of at most t_b with every box
    "both": BOTH,  # the rest: IoU from t_b to t_f with a box of another class
}


class Verdicts(NamedTuple):
    """The judgement of every detection (N) and every box (G)."""

    kind: np.ndarray  # [N] TRUE, one of KINDS' numbers, or IGNORED (on a crowd)
    truth: np.ndarray  # [N] the box that it matches or that its error refers to; -1 where there is none
    fixes: np.ndarray  # [N] bool: the best-scored localisation or classification error at an unmatched box
    found: np.ndarray  # [G] bool: matched
    missed: np.ndarray  # [G] bool: neither matched, nor referred to by an error, nor a crowd


def verdicts(found: Found) -> Verdicts:
    """Judge every detection of a split at an IoU of 0.5."""
    truth, rows = found.truth, found.rows
    boxes, crowd, label = truth.boxes.numpy(), truth.crowd.numpy(), truth.labels.numpy()
    image = truth.box_image.numpy()
    det_label, classes = rows[:, 5].astype(np.int64), len(truth.class_names)
    group = found.images * classes + det_label
    same = pairs_of(group, rows[:, :4], image * classes + label, boxes, crowd, least=FOREGROUND)
    matched = match(same, place_in_group(group, rows[:, 4]), crowd, crowd, np.array([FOREGROUND]))
    at, on_crowd = matched.truth[:, 0], matched.ignored[:, 0]
    taken = np.zeros(len(label) + 1, bool)  # one more, for the row -1 of "no box"
    taken[at[(at >= 0) & ~on_crowd]] = True
    near = pairs_of(found.images, rows[:, :4], np.where(crowd, -1, image), boxes, crowd, least=BACKGROUND)
    same_class = det_label[near.det] == label[near.truth]
    own_iou, own = _best(near, same_class, len(rows))
    other_iou, other = _best(near, ~same_class, len(rows))
    used_iou, used = _best(near, same_class & taken[near.truth], len(rows))
    choices = [
        (on_crowd, IGNORED, np.full_like(at, -1)),
        (at >= 0, TRUE, at),
        ((own_iou >= BACKGROUND) & (own_iou <= FOREGROUND), LOCALISATION, own),
        (other_iou >= FOREGROUND, CLASSIFICATION, other),
        (used_iou >= FOREGROUND, DUPLICATE, used),
        (np.maximum(own_iou, other_iou) <= BACKGROUND, BACKGROUND_HIT, np.full_like(at, -1)),
    ]
    conditions = [c for c, _, _ in choices]
    kind = np.select(conditions, [np.full_like(at, k) for _, k, _ in choices], BOTH)
    concerned = np.select(conditions, [t for _, _, t in choices], np.where(own_iou > other_iou, own, other))
    points = np.isin(kind, (LOCALISATION, CLASSIFICATION)) & ~taken[concerned]
    fixes = np.zeros(len(rows), bool)
    by_score = np.flatnonzero(points)[np.argsort(-rows[points, 4], kind="stable")]
    fixes[by_score[np.unique(concerned[by_score], return_index=True)[1]]] = True
    pointed = np.zeros(len(label), bool)
    pointed[concerned[points]] = True
    taken = taken[:-1]
    return Verdicts(kind, concerned, fixes, taken, ~taken & ~pointed & ~crowd)


def error_shares(found: Found, judged: Verdicts) -> dict[str, Any]:
    """AP at 0.5, and for every kind of error its count and the AP regained when it is fixed.

    The kinds are KINDS and missed. Beside them are the paper's two special errors: false_positives (fixed by scoring
    every false detection below every true one) and false_negatives (fixed by not counting unmatched boxes).
    """
    label, scores = found.rows[:, 5].astype(np.int64), found.rows[:, 4]
    truth_label, crowd = found.truth.labels.numpy(), found.truth.crowd.numpy()
    classes = len(found.truth.class_names)
    counts = np.bincount(truth_label[~crowd], minlength=classes)
    known, hit = counts > 0, judged.kind == TRUE
    keep = judged.kind != IGNORED

    def ap(keep: np.ndarray, hit: np.ndarray, label: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> float:
        return _mean_ap(label[keep], scores[keep], hit[keep], counts, known)

    start = ap(keep, hit, label, scores, counts)
    gains = {}
    for name, kind in KINDS.items():
        of_kind = judged.kind == kind
        mended = of_kind & judged.fixes
        own = np.where(mended, truth_label[judged.truth], label) if len(truth_label) else label
        gains[name] = ap(keep & (~of_kind | mended), hit | mended, own, scores, counts)
    without = counts - np.bincount(truth_label[judged.missed], minlength=classes)
    gains["missed"] = ap(keep, hit, label, scores, without)
    lost = ~judged.found & ~crowd
    all_found = counts - np.bincount(truth_label[lost], minlength=classes)
    numbers = {name: int((judged.kind == kind).sum()) for name, kind in KINDS.items()}
    numbers |= {"missed": int(judged.missed.sum())}
    return {
        "ap_50": start,
        "kinds": {n: {"count": numbers[n], "ap_regained": max(0.0, g - start)} for n, g in gains.items()},
        "special": {
            "false_positives": {
                "count": int((keep & ~hit).sum()),
                "ap_regained": max(0.0, ap(keep, hit, label, hit.astype(float), counts) - start),
            },
            "false_negatives": {
                "count": int(lost.sum()),
                "ap_regained": max(0.0, ap(keep, hit, label, scores, all_found) - start),
            },
        },
    }


def _mean_ap(label: np.ndarray, scores: np.ndarray, hit: np.ndarray, counts: np.ndarray, known: np.ndarray) -> float:
    """Mean AP at 101 recall points over the known classes, except classes with neither boxes nor detections left."""
    order = np.lexsort((-scores, label))
    label, hit = label[order], hit[order]
    bounds = np.searchsorted(label, np.arange(len(counts) + 1))
    values = []
    for k in np.flatnonzero(known):
        part = hit[bounds[k] : bounds[k + 1]]
        if counts[k] > 0:
            values.append(interpolated(part, ~part, int(counts[k])).mean())
        elif len(part):
            values.append(0.0)
    return float(np.mean(values)) if values else 0.0


def _best(pairs: Pairs, wanted: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU [N] among each detection's wanted pairs, and the box [N] of that pair; 0 and -1 without pairs."""
    rows = np.flatnonzero(wanted)
    rows = rows[np.lexsort((pairs.truth[rows], -pairs.iou[rows], pairs.det[rows]))]
    det, first = np.unique(pairs.det[rows], return_index=True)
    iou, truth = np.zeros(count), np.full(count, -1)
    iou[det], truth[det] = pairs.iou[rows[first]], pairs.truth[rows[first]]
    return iou, truth
