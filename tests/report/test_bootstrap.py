"""AP of resampled images, against COCO's own evaluation, and the intervals made of it."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlab.report.bootstrap import Interval, contrast, draw_weights, resampled_ap
from detlab.report.detections import SIZES, as_truth, judge
from tests.report.folders import detections, ground_truth


def reference(document: dict, results: list[dict], size: int = 0) -> np.ndarray:
    """pycocotools' AP by class, over all sizes (0), small, medium or large boxes; NaN where a class has none."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, size, 2]
    precision[precision < 0] = np.nan
    return np.array([precision[:, :, k].mean() for k in range(precision.shape[2])])


@pytest.mark.parametrize("seed", range(5))
def test_the_split_itself_has_the_ap_of_pycocotools(seed: int) -> None:
    document = ground_truth(images=30, classes=3, boxes=5, seed=seed)
    results = detections(document, 3.0, seed, false=3)
    truth = as_truth(document)
    ap = resampled_ap(judge(results, truth, document), truth, np.ones((1, 30), np.int64))
    assert np.allclose(ap[0], reference(document, results), atol=1e-12)


@pytest.mark.parametrize(("size", "metric"), list(enumerate(SIZES)))
def test_by_size(size: int, metric: str) -> None:
    document = ground_truth(images=40, classes=3, boxes=6, seed=0)
    for annotation in document["annotations"]:  # sizes on both sides of COCO's bounds, and one at a bound
        x, y, w, h = annotation["bbox"]
        scale = (0.6, 1, 3)[annotation["id"] % 3]
        annotation["bbox"] = [x, y, w * scale, h * scale]
        annotation["area"] = 1024 if annotation["id"] == 5 else w * h * scale**2
    results = detections(document, 3.0, 0, false=3)
    truth = as_truth(document)
    assert judge(results, truth, document, metric).wanted.sum() >= 10
    ap = resampled_ap(judge(results, truth, document, metric), truth, np.ones((1, 40), np.int64))
    np.testing.assert_allclose(ap[0], reference(document, results, size), atol=1e-12)


def test_an_image_drawn_twice_counts_as_two_images() -> None:
    document = ground_truth(images=12, boxes=4)
    results = [{**r, "score": 1 - i / 1000} for i, r in enumerate(detections(document, 2.0, 1))]
    weights = np.array([[2, 0, 1, 1, 3, 0, 1, 1, 1, 0, 1, 1]])
    truth = as_truth(document)
    ap = resampled_ap(judge(results, truth, document), truth, weights)
    copied, copied_results = {**document, "images": [], "annotations": []}, []
    for image, times in zip(document["images"], weights[0], strict=True):
        for _ in range(times):
            number = len(copied["images"]) + 1
            copied["images"].append({**image, "id": number})
            mine = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            copied["annotations"] += [{**a, "image_id": number} for a in mine]
            copied_results += [{**r, "image_id": number} for r in results if r["image_id"] == image["id"]]
    for i, annotation in enumerate(copied["annotations"], start=1):
        annotation["id"] = i
    assert np.allclose(ap[0], reference(copied, copied_results), atol=0.01)  # but for the order within ties


def test_a_class_that_no_drawn_image_has_is_absent() -> None:
    document = ground_truth(images=6)
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] == 2 or a["image_id"] > 1]
    truth = as_truth(document)
    judged = judge(detections(document, 1.0, 0), truth, document)
    weights = np.array([[6, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])  # image 1 alone has no box of the first class
    assert np.isnan(resampled_ap(judged, truth, weights)[:, 0]).tolist() == [True, False]


def test_weights_draw_as_many_images_as_there_are() -> None:
    weights = draw_weights(50, 200)
    assert weights.shape == (201, 50)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 50).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """300 experiments of 3 seeds and 200 images. Three seeds tell little of their own spread, so that intervals where
    it is large hold the truth less often than 95 %."""
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        seed_part = generator.normal(0, 0.01, 3)
        per_image = 0.1 + generator.normal(0, 0.3, 200)
        weights = draw_weights(200, 200, seed=trial)
        tables = {(1, s): (weights @ per_image) / 200 + seed_part[s] for s in range(3)}
        tables |= {(0, s): np.zeros(201) for s in range(3)}
        found = contrast(tables, {1: 1.0, 0: -1.0}, [0, 1, 2], seed=trial)
        held += found.low <= 0.1 <= found.high
    assert 0.9 <= held / 300 <= 0.99


def test_words() -> None:
    assert Interval(0.02, -0.01, 0.05).words == "not distinguishable"
    assert Interval(0.02, 0.01, 0.03).words == "better"
    assert Interval(-0.02, -0.03, -0.01).words == "worse"


def test_without_difference_the_words_say_so() -> None:
    document = ground_truth(images=60)
    truth, weights = as_truth(document), draw_weights(60, 200)

    def table(shift: float, seed: int) -> np.ndarray:
        judged = judge(detections(document, shift, seed), truth, document)
        return np.nanmean(resampled_ap(judged, truth, weights), axis=1)

    base = {(0, s): table(2.0, s) for s in range(3)}
    same, worse = {(1, s): table(2.0, 10 + s) for s in range(3)}, {(1, s): table(8.0, s) for s in range(3)}
    parts = {1: 1.0, 0: -1.0}
    assert contrast({**base, **same}, parts, [0, 1, 2]).words == "not distinguishable"
    assert contrast({**base, **worse}, parts, [0, 1, 2]).words == "worse"
