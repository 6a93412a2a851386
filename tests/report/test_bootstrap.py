"""AP of resampled images, against COCO's own evaluation, and the intervals made of it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlab.metrics.collected import Found
from detlab.metrics.voc_ap import voc_ap
from detlab.report.bootstrap import draw_weights, resampled_ap
from detlab.report.detections import SIZES, as_truth, judge
from detlab.report.drawn import read_drawn
from detlab.report.intervals import contrasts
from detlab.tensors.structures import GroundTruth
from tests.report.folders import detections, ground_truth


def evaluated(document: dict, results: list[dict], **parameters: object) -> COCOeval:
    """pycocotools' evaluation with these parameters."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        for name, value in parameters.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def reference(document: dict, results: list[dict], size: int = 0) -> np.ndarray:
    """pycocotools' AP by class, over all sizes (0), small, medium or large boxes; NaN where a class has none."""
    evaluation = evaluated(document, results)
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


def test_without_difference_the_words_say_so() -> None:
    document = ground_truth(images=60)
    truth, weights = as_truth(document), draw_weights(60, 200)

    def table(shift: float, seed: int) -> np.ndarray:
        judged = judge(detections(document, shift, seed), truth, document)
        return np.nanmean(resampled_ap(judged, truth, weights), axis=1)

    same, worse = [table(2.0, 10 + s) for s in range(3)], [table(8.0, s) for s in range(3)]
    tables = np.array([[table(2.0, s) for s in range(3)], same, worse])  # [R, S, B + 1]
    found = contrasts(tables[..., 0], tables[..., 1:], [[-1, 1, 0], [-1, 0, 1]], images=60)
    assert [contrast.words for contrast in found] == ["not distinguishable", "worse"]


def stored_run(folder: Path, seed: int = 0) -> tuple[dict, list[dict]]:
    """A run's two files, with boxes of all sizes, ties, crowds and difficult ones."""
    document = ground_truth(images=40, classes=3, boxes=6, seed=seed)
    for annotation in document["annotations"]:
        x, y, w, h = annotation["bbox"]
        scale = (0.6, 1, 3)[annotation["id"] % 3]
        annotation["bbox"], annotation["area"] = [x, y, w * scale, h * scale], w * h * scale**2
        annotation["difficult"] = int(annotation["id"] % 7 == 0)
    results = detections(document, 3.0, seed, false=8)
    (folder / "ground_truth.json").write_text(json.dumps(document))
    (folder / "detections.json").write_text(json.dumps(results))
    return document, results


def test_every_metric_on_the_split_itself_is_that_of_pycocotools(tmp_path: Path) -> None:
    document, results = stored_run(tmp_path)
    drawn = read_drawn(tmp_path, ["map", "mar_1", "mar_2", "mar_4"], 5)
    assert drawn is not None
    names = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_2", "mar_4"]
    names += ["mar_small", "mar_medium", "mar_large"]
    evaluation = evaluated(document, results, maxDets=[1, 2, 4])
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean())

    expected = [mean(precision[..., 0, 2]), mean(precision[0, ..., 0, 2]), mean(precision[5, ..., 0, 2])]
    expected += [mean(precision[..., a, 2]) for a in (1, 2, 3)] + [mean(recall[..., 0, m]) for m in range(3)]
    expected += [mean(recall[..., a, 2]) for a in (1, 2, 3)]
    assert [drawn.values[name][0] for name in names] == pytest.approx(expected, abs=1e-12)
    for k in range(3):
        assert drawn.values[f"ap/class {k}"][0] == pytest.approx(mean(precision[:, :, k, 0, 2]), abs=1e-12)
    assert drawn.boxes["map"] == sum(not a["iscrowd"] for a in document["annotations"])
    assert drawn.boxes["map"] == sum(drawn.boxes[f"map_{size}"] for size in ("small", "medium", "large"))
    assert drawn.boxes["map"] == sum(drawn.boxes[f"ap/class {k}"] for k in range(3))


def test_recall_of_proposals_is_that_of_pycocotools_without_classes(tmp_path: Path) -> None:
    document, results = stored_run(tmp_path)
    for i, result in enumerate(results):  # pycocotools breaks ties by class first
        result["score"] += i * 1e-6
    (tmp_path / "detections.json").write_text(json.dumps(results))
    drawn = read_drawn(tmp_path, ["ar_3", "ar_6"], 5)
    assert drawn is not None
    recall = evaluated(document, results, maxDets=[1, 3, 6], useCats=0).eval["recall"]
    expected = [recall[:, 0, 0, 1].mean(), recall[:, 0, 0, 2].mean(), *(recall[:, 0, a, 2].mean() for a in (1, 2, 3))]
    names = ["ar_3", "ar_6", "ar_small", "ar_medium", "ar_large"]
    assert [drawn.values[name][0] for name in names] == pytest.approx(expected, abs=1e-12)
    assert len(drawn.values) == 5


@pytest.mark.parametrize("kind", ["voc07", "voc12"])
def test_voc_ap_is_that_of_the_metric(tmp_path: Path, kind: str) -> None:
    document, results = stored_run(tmp_path)
    x, y, w, h = (round(side) for side in document["annotations"][0]["bbox"])
    document["annotations"][0]["bbox"] = [x, y, w, h]
    document["annotations"][0] |= {"iscrowd": 0, "difficult": 0}
    of = {key: document["annotations"][0][key] for key in ("image_id", "category_id")}
    results.insert(0, {**of, "bbox": [x, y, w, h / 2], "score": 2.0})  # an IoU of exactly a half
    (tmp_path / "ground_truth.json").write_text(json.dumps(document))
    (tmp_path / "detections.json").write_text(json.dumps(results))
    drawn = read_drawn(tmp_path, [f"map_{kind}"], 5)
    assert drawn is not None
    corners = np.array([[*r["bbox"], r["score"], r["category_id"] - 1] for r in results])
    corners[:, 2:4] += corners[:, :2]
    boxes = torch.tensor([a["bbox"] for a in document["annotations"]], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    fields = {key: torch.tensor([a[key] for a in document["annotations"]]) for key in ("area", "iscrowd", "difficult")}
    truth = GroundTruth(
        image_ids=torch.tensor([i["id"] for i in document["images"]]),
        sizes=torch.full((40, 2), 128),
        file_names=("",) * 40,
        box_image=torch.tensor([a["image_id"] for a in document["annotations"]]),
        boxes=boxes,
        labels=torch.tensor([a["category_id"] - 1 for a in document["annotations"]]),
        area=fields["area"],
        crowd=fields["iscrowd"].bool(),
        difficult=fields["difficult"].bool(),
        class_names=tuple(f"class {k}" for k in range(3)),
        category_ids=(1, 2, 3),
    )
    expected = voc_ap(Found(truth, corners, np.array([r["image_id"] for r in results])), kind)
    assert {name: value[0] for name, value in drawn.values.items()} == pytest.approx(expected, abs=1e-12)


def test_a_copy_is_read_and_made_anew_when_the_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_run(tmp_path)
    metrics = ["map", "ar_6", "map_voc07"]
    first = read_drawn(tmp_path, metrics, 20)
    more = read_drawn(tmp_path, metrics, 30)  # other resamples, from the matching that was kept
    assert first is not None
    assert more is not None
    (tmp_path / ".report" / "resampled-30.npz").unlink()
    (tmp_path / ".report" / "matched.npz").write_bytes(b"broken")
    anew = read_drawn(tmp_path, metrics, 30)
    assert anew is not None
    for name, value in anew.values.items():
        np.testing.assert_array_equal(value, more.values[name])
    with monkeypatch.context() as patched:
        patched.setattr("detlab.report.drawn.read_stored", lambda _: pytest.fail("the copy was not used"))
        again = read_drawn(tmp_path, metrics, 20)
    assert again is not None
    for name in first.values:
        np.testing.assert_array_equal(again.values[name], first.values[name])
    assert (again.classes, again.digest, again.boxes) == (first.classes, first.digest, first.boxes)
    stored_run(tmp_path, seed=1)
    changed = read_drawn(tmp_path, metrics, 20)
    assert changed is not None
    assert changed.values["map"][0] != first.values["map"][0]
    assert read_drawn(tmp_path / "nowhere", metrics, 20) is None
