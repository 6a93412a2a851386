"""VOC AP: golden numbers, the devkit's rules against a loop over inclusive pixel corners, difficult boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detlab.metrics.voc_ap import VocAP
from detlab.tensors.structures import Detections, GroundTruth
from tests.metrics.test_coco_ap import random_case


def case(truths: list[list[float]], boxes: list[list[float]], difficult: list[bool] | None = None) -> VocAP:
    """One image and class; detections by falling score."""
    count = len(truths)
    truth = GroundTruth(
        image_ids=torch.tensor([1]),
        sizes=torch.tensor([[500, 500]]),
        box_image=torch.ones(count, dtype=torch.int64),
        boxes=torch.tensor(truths, dtype=torch.float64),
        labels=torch.zeros(count, dtype=torch.int64),
        area=torch.ones(count, dtype=torch.float64),
        crowd=torch.zeros(count, dtype=torch.bool),
        difficult=torch.tensor(difficult or [False] * count),
        class_names=("thing",),
        category_ids=(1,),
        file_names=("x",),
    )
    scores = torch.linspace(0.9, 0.1, len(boxes))[None]
    found = Detections(torch.tensor([boxes]), scores, torch.zeros(1, len(boxes), dtype=torch.int64))
    return truth, found


def judged(kind: str, truth: GroundTruth, found: Detections, ids: torch.Tensor | None = None) -> dict[str, float]:
    metric = VocAP(truth, kind)
    metric.update(found, torch.tensor([1]) if ids is None else ids)
    return metric.compute()


FIVE = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(5)]
AWAY = [300.0, 300, 310, 310]


def test_golden_numbers() -> None:
    """TP, TP, FP, TP, FP of 5 boxes: recall .2 .4 .4 .6 .6, precision 1 1 .667 .75 .6.

    Eleven points: three at 1 (0, .1, .2), two at 1 (.3, .4), two at .75 (.5, .6): 6.5 / 11; in float64 the point .6 is
    missed, which gives 5.75 / 11.
    """
    truth, found = case(FIVE, [FIVE[0], FIVE[1], AWAY, FIVE[2], AWAY])
    assert judged("voc12", truth, found)["map_voc12"] == pytest.approx(0.55, abs=1e-12)
    assert judged("voc07", truth, found)["map_voc07"] == pytest.approx(6.5 / 11, abs=1e-12)


def test_difficult_boxes_neither_count_nor_cost() -> None:
    truth, found = case(FIVE[:3], [FIVE[0], FIVE[1], FIVE[1]], difficult=[False, True, False])
    result = judged("voc12", truth, found)
    assert result == {"map_voc12": 0.5, "ap_voc12/thing": 0.5}  # hits on the difficult one are left out
    truth, found = case(FIVE[:1], [FIVE[0]], difficult=[True])
    assert judged("voc07", truth, found) == {}


@pytest.mark.parametrize("kind", ["voc07", "voc12"])
def test_an_overlap_of_exactly_half_is_a_hit(kind: str) -> None:
    """The devkit's ovmax >= minoverlap, of 50 px of 100."""
    truth, found = case([[0.0, 0, 10, 10]], [[0.0, 0, 10, 5]])
    assert judged(kind, truth, found)[f"map_{kind}"] == 1
    truth, found = case([[0.0, 0, 10, 10]], [[0.0, 0, 10, 4.999]])
    assert judged(kind, truth, found)[f"map_{kind}"] == 0


def test_a_taken_box_is_not_passed_on() -> None:
    # The second detection lies best on the first box, which is taken; that it fits the second as well helps nothing.
    truth, found = case([[0.0, 0, 10, 10], [0.0, 2, 10, 12]], [[0.0, 0, 10, 10], [0.0, 0.5, 10, 10.5]])
    assert judged("voc12", truth, found)["map_voc12"] == 0.5


def by_loops(truth: GroundTruth, found: Detections, ids: torch.Tensor, kind: str) -> dict[str, float]:
    """The devkit's protocol box by box, on inclusive corners with its + 1."""
    result = {}
    for k, name in enumerate(truth.class_names):
        rows = sorted(
            (-float(found.scores[i, j]), int(image), i, j)
            for i, image in enumerate(ids)
            for j in range(found.labels.shape[1])
            if found.labels[i, j] == k
        )
        mine = [g for g in range(len(truth.labels)) if truth.labels[g] == k]
        free = {g for g in mine if not truth.difficult[g] and not truth.crowd[g]}
        count, verdicts = len(free), []
        for _, image, i, j in rows:
            x1, y1, x2, y2 = found.boxes[i, j].double().tolist()
            x1, y1 = x1 + 1, y1 + 1  # continuous -> inclusive
            best, which = -1.0, None
            for g in (g for g in mine if truth.box_image[g] == image):
                gx1, gy1, gx2, gy2 = truth.boxes[g].tolist()
                gx1, gy1 = gx1 + 1, gy1 + 1
                iw, ih = min(x2, gx2) - max(x1, gx1) + 1, min(y2, gy2) - max(y1, gy1) + 1
                if iw > 0 and ih > 0:
                    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (gx2 - gx1 + 1) * (gy2 - gy1 + 1) - iw * ih
                    if iw * ih / union > best:
                        best, which = iw * ih / union, g
            if best < 0.5:
                verdicts.append(False)
            elif truth.difficult[which] or truth.crowd[which]:
                continue
            else:
                verdicts.append(which in free)
                free.discard(which)
        if not count:
            continue
        true = np.cumsum(verdicts) if verdicts else np.zeros(0)
        precision = [t / (n + 1) for n, t in enumerate(true)]
        if kind == "voc07":
            at = [
                max([p for p, t in zip(precision, true, strict=True) if 10 * t >= i * count], default=0)
                for i in range(11)
            ]
            result[name] = sum(at) / 11
        else:
            area, last = 0.0, 0.0
            for n, t in enumerate(true):
                area += (t / count - last) * max(precision[n:])
                last = t / count
            result[name] = area
    return result


@pytest.mark.parametrize("kind", ["voc07", "voc12"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_devkits_loop(kind: str, seed: int) -> None:
    truth, found, ids = random_case(seed)
    rng = np.random.default_rng(seed)
    truth = truth._replace(difficult=torch.from_numpy(rng.random(len(truth.labels)) < 0.2))
    found = found._replace(
        scores=torch.from_numpy(rng.permutation(found.scores.numel())).reshape(found.scores.shape) / 1e3
    )
    result = judged(kind, truth, found, ids)
    expected = by_loops(truth, found, ids, kind)
    assert {k.split("/")[1]: v for k, v in result.items() if "/" in k} == pytest.approx(expected, abs=1e-12)
    assert result[f"map_{kind}"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert 0 < result[f"map_{kind}"] < 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.voc_ap=voc10 is not known; use null, voc07 or voc12"):
        VocAP(case(FIVE, [AWAY])[0], "voc10")
