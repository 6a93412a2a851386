"""Error shares on a hand-made image, and what the other parts of the report count."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from detlab.drawing.plots import error_figures, pixels
from detlab.metrics.breakdown import (
    best_f1,
    confusion,
    error_report,
    hits,
    recall_by_size,
    recall_by_stage,
    score_histograms,
    worst_images,
)
from detlab.metrics.coco_ap import CocoAP, coco_ap
from detlab.metrics.collected import Found, coco_truth
from detlab.metrics.error_kinds import (
    BACKGROUND_HIT,
    BOTH,
    CLASSIFICATION,
    DUPLICATE,
    IGNORED,
    LOCALISATION,
    TRUE,
    error_shares,
    verdicts,
)
from detlab.tensors.structures import GroundTruth
from tests.metrics.test_coco_ap import random_case


def made(boxes: list[tuple], found: list[tuple], classes: int = 2) -> Found:
    """One image of boxes (x, y, side, class[, crowd]) and detections (x, y, side, score, class)."""
    truth = np.array([b[:3] for b in boxes], float).reshape(-1, 3)
    crowd = torch.tensor([len(b) > 4 and b[4] for b in boxes], dtype=torch.bool)
    rows = np.array(found, float).reshape(-1, 5)
    return Found(
        GroundTruth(
            image_ids=torch.tensor([7]),
            sizes=torch.tensor([[400, 400]]),
            box_image=torch.full((len(boxes),), 7),
            boxes=torch.from_numpy(np.column_stack([truth[:, :2], truth[:, :2] + truth[:, 2:]])),
            labels=torch.tensor([b[3] for b in boxes], dtype=torch.int64),
            area=torch.from_numpy(truth[:, 2] ** 2),
            crowd=crowd,
            difficult=torch.zeros(len(boxes), dtype=torch.bool),
            class_names=("a", "b")[:classes],
            category_ids=(1, 2)[:classes],
            file_names=("x.png",),
        ),
        np.column_stack([rows[:, :2], rows[:, :2] + rows[:, 2:3], rows[:, 3:]]),
        np.full(len(rows), 7),
    )


# Squares of side 10. Shifted by 3 px they overlap by 70 / 130 = 0.54, by 5 px by 50 / 150 = 0.33.
BOXES = [(0, 0, 10, 0), (50, 0, 10, 0), (100, 0, 10, 1), (150, 0, 10, 0), (200, 0, 10, 1)]
FOUND = [
    (0, 0, 10, 0.9, 0),  # right
    (3, 0, 10, 0.8, 0),  # its duplicate
    (55, 0, 10, 0.7, 0),  # badly placed on the second box
    (100, 0, 10, 0.6, 0),  # the third box under the wrong class
    (300, 300, 10, 0.5, 1),  # background
    (205, 0, 10, 0.4, 0),  # near the fifth box, of the wrong class: both
]  # the fourth and fifth boxes are missed: no error points at them


def test_every_kind_is_told_apart() -> None:
    judged = verdicts(made(BOXES, FOUND))
    assert judged.kind.tolist() == [TRUE, DUPLICATE, LOCALISATION, CLASSIFICATION, BACKGROUND_HIT, BOTH]
    assert judged.truth[:4].tolist() == [0, 0, 1, 2]
    assert judged.fixes.tolist() == [False, False, True, True, False, False]
    assert judged.found.tolist() == [True, False, False, False, False]
    assert judged.missed.tolist() == [False, False, False, True, True]


def test_the_gain_of_each_fix_by_hand() -> None:
    """AP of class a: 3 boxes, verdicts T F F F F by falling score: precision 1 up to recall 1/3, so 34 points of 101.

    Localisation: T F T F F: recall 2/3 at precision 2/3: (34 * 1 + 33 * 2/3) / 101. Classification: a becomes T F F F,
    b gains its first hit of two boxes, above the background one: 51 / 101. Duplicate, both, background: no true
    detection comes later, nothing is gained. Missed: two boxes of a (1/2 found: 51 points) and one of b (none found).
    False positives last: nothing; every box not found off the count: a 1, b none left but a false detection: 0.
    """
    found = made(BOXES, FOUND)
    report = error_shares(found, verdicts(found))
    a = 34 / 101
    start = a / 2
    assert report["ap_50"] == pytest.approx(start)
    gains = {name: row["ap_regained"] for name, row in report["kinds"].items()}
    assert gains == pytest.approx(
        {
            "localisation": (34 + 33 * 2 / 3) / 101 / 2 - start,
            "classification": (a + 51 / 101) / 2 - start,
            "duplicate": 0,
            "background": 0,
            "both": 0,
            "missed": 51 / 101 / 2 - start,
        }
    )
    assert {name: row["count"] for name, row in report["kinds"].items()} == {
        "localisation": 1,
        "classification": 1,
        "duplicate": 1,
        "background": 1,
        "both": 1,
        "missed": 2,
    }
    assert report["special"]["false_positives"] == {"count": 5, "ap_regained": pytest.approx(0)}
    assert report["special"]["false_negatives"] == {"count": 4, "ap_regained": pytest.approx(0.5 - start)}


def test_kinds_at_exactly_half_and_a_tenth() -> None:
    """Squares of side 3, 1 px apart, overlap by 6 / 12, of side 11, 9 px apart, by 22 / 220; as in the paper's code."""
    half, tenth = (0, 0, 3, 0), (100, 0, 11, 0)
    assert verdicts(made([half], [(1, 0, 3, 0.9, 0)])).kind.tolist() == [TRUE]
    assert verdicts(made([half], [(0, 0, 3, 0.9, 0), (1, 0, 3, 0.8, 0)])).kind.tolist() == [TRUE, LOCALISATION]
    assert verdicts(made([half], [(1, 0, 3, 0.9, 1)])).kind.tolist() == [CLASSIFICATION]
    assert verdicts(made([tenth], [(109, 0, 11, 0.9, 0)])).kind.tolist() == [LOCALISATION]
    assert verdicts(made([tenth], [(109, 0, 11, 0.9, 1)])).kind.tolist() == [BACKGROUND_HIT]


def test_a_detection_on_a_crowd_is_no_error_from_half_on() -> None:
    """Other than in the paper's code, which keeps it out of the AP, but counts it as background."""
    crowd = [(100, 100, 100, 0, True)]
    inside, half, outside = (120, 120, 10, 0.9, 0), (95, 120, 10, 0.8, 0), (94, 120, 10, 0.7, 0)
    found = made([(0, 0, 10, 0), *crowd], [inside, half, outside])
    judged = verdicts(found)
    assert judged.kind.tolist() == [IGNORED, IGNORED, BACKGROUND_HIT]
    assert error_shares(found, judged)["kinds"]["background"]["count"] == 1
    assert verdicts(made(crowd, [(120, 120, 10, 0.9, 1)])).kind.tolist() == [BACKGROUND_HIT]  # of another class


def test_recall_is_read_at_cocos_points() -> None:
    """7 of 10 boxes: numpy's point 70 is 0.7000000000000001, so points 0 to 69 are reached; of k / 100 one more."""
    found = made([(20 * i, 0, 10, 0) for i in range(10)], [(20 * i, 0, 10, 0.9, 0) for i in range(7)], classes=1)
    assert error_shares(found, verdicts(found))["ap_50"] == pytest.approx(70 / 101, abs=1e-12)
    assert coco_ap(found)["map_50"] == pytest.approx(70 / 101, abs=1e-12)


def test_only_the_best_error_at_a_box_mends_it_and_crowds_take_no_blame() -> None:
    boxes = [(0, 0, 10, 0), (100, 100, 100, 0, True)]
    judged = verdicts(made(boxes, [(5, 0, 10, 0.3, 0), (0, 5, 10, 0.6, 0), (120, 120, 10, 0.9, 0)]))
    assert judged.kind.tolist() == [LOCALISATION, LOCALISATION, IGNORED]
    assert judged.fixes.tolist() == [False, True, False]
    assert not judged.missed.any()


def test_empty_sides_are_no_error() -> None:
    assert verdicts(made([], FOUND)).kind.tolist() == [BACKGROUND_HIT] * 6
    for found in (made([], FOUND), made(BOXES, []), made([], [])):
        report = error_report(found)
        assert report["ap_50"] == 0
        json.dumps(report, allow_nan=False)
        for figure in error_figures(report).values():
            assert pixels(figure).ndim == 3


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_start_from_the_metrics_own_ap(seed: int) -> None:
    truth, detections, ids = random_case(seed)
    metric = CocoAP(truth)
    metric.update(detections, ids)
    found = metric.merged()
    judged = verdicts(found)
    report = error_shares(found, judged)
    assert report["ap_50"] == pytest.approx(coco_ap(found)["map_50"], abs=1e-12)
    counts = [row["count"] for name, row in report["kinds"].items() if name != "missed"]
    assert sum(counts) + (judged.kind == TRUE).sum() + (judged.kind == IGNORED).sum() == len(found.rows)
    assert all(0 <= row["ap_regained"] <= 1 - report["ap_50"] for row in report["kinds"].values())


def test_confusion_counts_every_box_and_detection_once() -> None:
    table = confusion(made(BOXES, FOUND), 0.45)
    assert table["classes"] == ["a", "b", "background"]
    # a: one right, two lost; b: one called a, one lost; false: the duplicate and the badly placed one, and background.
    assert table["counts"] == [[1, 0, 2], [1, 0, 1], [2, 1, 0]]


def test_best_f1() -> None:
    found = made(BOXES[:2], [(0, 0, 10, 0.9, 0), (50, 0, 10, 0.7, 0), (300, 0, 10, 0.7, 0), (300, 50, 10, 0.6, 0)])
    assert best_f1(found, verdicts(found)) == pytest.approx({"score": 0.7, "f1": 0.8, "precision": 2 / 3, "recall": 1})


def test_recall_by_size_and_stage() -> None:
    found = made([(0, 0, 10, 0), (50, 0, 20, 1), (100, 0, 40, 0)], [(0, 0, 10, 0.9, 0), (52, 0, 20, 0.8, 1)])
    rows = recall_by_size(found)
    assert [(r["from"], r["to"], r["boxes"], r["recall_50"]) for r in rows] == [
        (0, 16, 1, 1.0),
        (16, 32, 1, 1.0),
        (32, 64, 1, 0.0),
    ]
    assert rows[1]["recall"] == pytest.approx(7 / 10)  # 18 / 22 = 0.82: IoU .50 to .80
    proposed = found._replace(rows=np.array([[0, 0, 10, 10, 0.9, 0], [100, 0, 140, 40, 0.8, 0]]), images=np.full(2, 7))
    stages = recall_by_stage(found, proposed)
    assert stages["boxes"] == pytest.approx({"found": 2 / 3, "proposed, not found": 1 / 3, "not proposed": 0})
    assert stages["proposals"]["recall_50"] == pytest.approx(2 / 3)
    assert hits(found)[:, 0].tolist() == [True, True, False]


def test_worst_images_come_first_with_what_went_wrong() -> None:
    truth, detections, ids = random_case(3)
    metric = CocoAP(truth)
    metric.update(detections, ids)
    worst = worst_images(metric.merged(), 4, score_threshold=0.5)
    errors = [len(w.kinds) + len(w.unfound) for w in worst]
    assert errors == sorted(errors, reverse=True)
    assert len(worst) == 4
    assert all((w.scores >= 0.5).all() for w in worst)
    assert worst_images(made([(0, 0, 10, 0)], [(0, 0, 10, 0.9, 0)]), 4, 0.5) == []


def test_ground_truth_goes_into_a_file_as_it_is() -> None:
    truth, _, _ = random_case(2)
    document = json.loads(json.dumps(coco_truth(truth)))
    assert [i["id"] for i in document["images"]] == truth.image_ids.tolist()
    assert [a["id"] for a in document["annotations"]] == list(range(1, len(truth.labels) + 1))
    assert {a["category_id"] for a in document["annotations"]} <= set(truth.category_ids)
    box = document["annotations"][0]["bbox"]
    assert [box[0], box[1], box[0] + box[2], box[1] + box[3]] == pytest.approx(truth.boxes[0].tolist())


def test_figures_of_a_whole_report() -> None:
    truth, detections, ids = random_case(1)
    metric = CocoAP(truth)
    metric.update(detections, ids)
    found = metric.merged()
    report = error_report(found, coverage=np.linspace(0, 1, len(truth.labels)), proposed=found)
    json.dumps(report, allow_nan=False)
    figures = error_figures(report)
    assert set(figures) == {
        "errors",
        "pr_curves",
        "confusion",
        "scores",
        "recall_by_size",
        "recall_by_anchor_iou",
        "stages",
    }
    assert all(pixels(f).std() > 1 for f in figures.values())


def test_scores_above_one_are_in_the_last_bin() -> None:
    """YOLOv1's outputs are linear, so a score may exceed 1; no detection is lost from the histogram."""
    found = made([(10, 10, 20, 0)], [(10, 10, 20, 1.2, 0), (200, 200, 20, 0.31, 0)])
    counts = score_histograms(found, verdicts(found))["counts"]
    assert counts["true"] == [*[0] * 19, 1]
    assert sum(map(sum, counts.values())) == 2
