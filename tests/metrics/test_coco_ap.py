"""COCO AP equals pycocotools, has values where that has none, and is the same under several processes."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import faster_coco_eval
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import distributed, multiprocessing

from detlab.metrics.coco_ap import CocoAP, precision_recall
from detlab.metrics.collected import coco_results
from detlab.metrics.proposal_recall import ProposalRecall
from detlab.metrics.summary import summary_rows
from detlab.tensors.structures import Detections, GroundTruth

NAMES = {
    "map": 0,
    "map_50": 1,
    "map_75": 2,
    "map_small": 3,
    "map_medium": 4,
    "map_large": 5,
    "mar_1": 6,
    "mar_10": 7,
    "mar_100": 8,
    "mar_small": 9,
    "mar_medium": 10,
    "mar_large": 11,
}


def random_case(seed: int, per_image: int = 25) -> tuple[GroundTruth, Detections, torch.Tensor]:
    """Ground truth with crowds, empty images, given areas, a class without ground truth and ids with gaps; detections
    near and far, with ties in score."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(np.arange(1, 60), 11, replace=False))
    boxes, images, crowd, labels = [], [], [], []
    for image in ids:
        for _ in range(rng.integers(0, 8)):
            x, y = rng.uniform(0, 200, 2)
            w, h = rng.uniform(4, 150, 2)
            boxes.append([x, y, x + w, y + h])
            images.append(image)
            crowd.append(rng.random() < 0.15)
            labels.append(rng.integers(0, 3))  # class 3 has no ground truth
    truth_boxes = torch.tensor(np.array(boxes).reshape(-1, 4))
    sides = truth_boxes[:, 2:] - truth_boxes[:, :2]
    truth = GroundTruth(
        image_ids=torch.tensor(ids),
        sizes=torch.full((len(ids), 2), 400),
        box_image=torch.tensor(np.array(images, np.int64)),
        boxes=truth_boxes,
        labels=torch.tensor(np.array(labels, np.int64)),
        area=torch.where(torch.arange(len(boxes)) % 9 == 0, 1024.0, sides.prod(1) * 0.7),  # a segment's; 32^2 exactly
        crowd=torch.tensor(np.array(crowd, bool)),
        difficult=torch.zeros(len(boxes), dtype=torch.bool),
        class_names=("a", "b", "c", "d"),
        category_ids=(3, 7, 8, 90),
        file_names=tuple(str(i) for i in ids),
    )
    near = np.array(boxes)[rng.integers(0, len(boxes), (len(ids), per_image))] + rng.normal(
        0, 6, (len(ids), per_image, 4)
    )
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 1)
    scores = rng.integers(1, 20, (len(ids), per_image)) / 20  # many ties
    found_labels = rng.integers(0, 4, (len(ids), per_image))
    found_labels[rng.random(found_labels.shape) < 0.3] = -1
    found_labels[0] = -1
    detections = Detections(
        torch.tensor(near, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(found_labels),
    )
    return truth, detections, torch.tensor(ids)


def by_pycocotools(
    truth: GroundTruth, results: list[dict], tmp_path: Path, max_detections: tuple[int, ...] = (1, 10, 100)
) -> COCOeval:
    sizes = truth.boxes[:, 2:] - truth.boxes[:, :2]
    document = {
        "info": {},
        "images": [{"id": int(i), "height": 400, "width": 400} for i in truth.image_ids],
        "categories": [{"id": c, "name": n} for c, n in zip(truth.category_ids, truth.class_names, strict=True)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(truth.box_image[i]),
                "bbox": [*truth.boxes[i, :2].tolist(), *sizes[i].tolist()],
                "area": float(truth.area[i]),
                "category_id": truth.category_ids[int(truth.labels[i])],
                "iscrowd": int(truth.crowd[i]),
            }
            for i in range(len(truth.labels))
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(tmp_path / "gt.json"))
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        if max_detections == (1, 10, 100):
            evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(40))
def test_equals_pycocotools(seed: int, tmp_path: Path) -> None:
    truth, detections, ids = random_case(seed, per_image=160 if seed % 8 == 0 else 25)
    metric = CocoAP(truth)
    for start in range(0, len(ids), 4):  # in batches
        part = slice(start, start + 4)
        metric.update(Detections(*(t[part] for t in detections)), ids[part])
    mine = metric.compute()
    expected = by_pycocotools(truth, coco_results(metric.merged()), tmp_path).stats
    for name, row in NAMES.items():
        if expected[row] == -1:
            assert name not in mine
        else:
            assert mine[name] == pytest.approx(expected[row], abs=1e-9), name
    assert "ap/d" not in mine


@pytest.mark.parametrize("max_detections", [(1, 10, 100), (3, 20), (150,)])
def test_the_whole_tables_equal_pycocotools(max_detections: tuple[int, ...], tmp_path: Path) -> None:
    truth, detections, ids = random_case(20, per_image=160)
    metric = CocoAP(truth)
    metric.update(detections, ids)
    found = metric.merged()
    mine = precision_recall(found, max_detections)
    expected = by_pycocotools(truth, coco_results(found), tmp_path, max_detections).eval
    assert np.abs(mine.precision - expected["precision"][..., -1]).max() < 1e-9
    assert np.abs(mine.recall - expected["recall"]).max() < 1e-9
    assert len(np.unique(mine.precision)) > 20


def test_faster_coco_eval_agrees(tmp_path: Path) -> None:
    truth, detections, ids = random_case(21)
    metric = CocoAP(truth)
    metric.update(detections, ids)
    by_pycocotools(truth, results := coco_results(metric.merged()), tmp_path)  # writes gt.json
    reference = faster_coco_eval.COCO(str(tmp_path / "gt.json"))
    evaluation = faster_coco_eval.COCOeval_faster(
        reference, reference.loadRes(results), "bbox", print_function=lambda *_: None
    )
    evaluation.run()
    assert metric.compute()["map"] == pytest.approx(evaluation.stats[0], abs=1e-9)


def test_no_detection_at_all_is_zero_for_classes_with_truth() -> None:
    truth, detections, ids = random_case(1)
    metric = CocoAP(truth)
    metric.update(detections._replace(labels=torch.full_like(detections.labels, -1)), ids)
    result = metric.compute()
    assert result["map"] == result["ap/a"] == result["mar_100"] == 0.0
    assert "ap/d" not in result
    assert coco_results(metric.merged()) == []


def test_other_numbers_of_detections_have_values() -> None:
    truth, detections, ids = random_case(2)
    metric = CocoAP(truth, max_detections=(5, 20))
    metric.update(detections, ids)
    result = metric.compute()
    assert 0 < result["mar_5"] <= result["mar_20"]
    assert result["map"] > 0


def test_perfect_boxes_score_one_and_image_id_zero_works() -> None:
    box = torch.tensor([[10.0, 10.0, 50.0, 60.0]])
    truth = GroundTruth(
        torch.tensor([0]),
        torch.tensor([[100, 100]]),
        torch.tensor([0]),
        box.double(),
        torch.tensor([0]),
        torch.tensor([2000.0]).double(),
        torch.tensor([False]),
        torch.tensor([False]),
        ("only",),
        (0,),
        ("x",),
    )
    for metric in (CocoAP(truth), ProposalRecall(truth)):
        metric.update(Detections(box[None], torch.tensor([[0.9]]), torch.tensor([[0]])), torch.tensor([0]))
        assert min(metric.compute().values()) == pytest.approx(1.0, abs=1e-12)


def test_missing_and_unknown_images_are_refused() -> None:
    truth, detections, ids = random_case(3)
    first = Detections(*(t[:5] for t in detections))
    metric = CocoAP(truth)
    metric.update(first, ids[:5])
    with pytest.raises(ValueError, match=rf"6 of 11 images of the split never came \(first id {ids[5]}\)"):
        metric.compute()
    metric.update(Detections(*(t[:1] for t in detections)), torch.tensor([999]))
    with pytest.raises(ValueError, match="image id 999"):
        metric.compute()


def test_a_part_of_the_split_is_judged_by_its_own_images() -> None:
    truth, detections, ids = random_case(3)
    metric = CocoAP(truth, partial=True)
    metric.update(Detections(*(t[:5] for t in detections)), ids[:5])
    kept = torch.isin(truth.box_image, ids[:5])
    names = ("box_image", "boxes", "labels", "area", "crowd", "difficult")
    alone = truth._replace(
        image_ids=ids[:5],
        sizes=truth.sizes[:5],
        file_names=truth.file_names[:5],
        **{n: getattr(truth, n)[kept] for n in names},
    )
    expected = CocoAP(alone)
    expected.update(Detections(*(t[:5] for t in detections)), ids[:5])
    assert metric.compute() == expected.compute()


def test_recall_ignores_classes() -> None:
    truth, detections, ids = random_case(4)
    metric = ProposalRecall(truth, max_detections=(100,))
    metric.update(detections._replace(labels=detections.labels.clamp(max=0)), ids)
    one = metric.compute()
    metric.reset()
    shuffled = torch.where(detections.labels >= 0, (detections.labels + 1) % 4, -1)
    metric.update(detections._replace(labels=shuffled), ids)
    assert metric.compute() == one
    assert one["ar_100"] > 0.1


def test_summary_puts_totals_before_classes() -> None:
    found = {"ap_voc07/cat": 0.625, "ap/cat": 0.5, "own": 0.125, "mar_small": 0.75, "mar_10": 1.0, "map": 0.25}
    totals = [("mAP", "0.250"), ("AR small", "0.750"), ("AR@10", "1.000"), ("own", "0.125")]
    assert summary_rows(found) == [*totals, ("AP cat", "0.500"), ("AP VOC 2007 cat", "0.625")]


def in_processes(work: Callable[[int, int, str], None], world: int, folder: Path) -> None:
    """Run work(rank, world, folder) in `world` processes; they are forked from a server that has imported torch."""
    multiprocessing.set_forkserver_preload(["torch", "detlab.metrics", "pytest", "pycocotools", "faster_coco_eval"])
    multiprocessing.start_processes(work, (world, str(folder)), nprocs=world, start_method="forkserver")


def _quiet_on_rank_one(world: int) -> tuple[GroundTruth, Detections, torch.Tensor]:
    """A case of 11 images, in which the images of rank 1 of `world` have no detection (under one process: all do)."""
    truth, detections, ids = random_case(5)
    labels = detections.labels.clone()
    if world > 1:
        labels[1::world] = -1
    return truth, detections._replace(labels=labels), ids


def _one_process(rank: int, world: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    truth, detections, ids = _quiet_on_rank_one(world)
    padded = [i % len(ids) for i in range(-(-len(ids) // world) * world)]
    metric = CocoAP(truth)
    for i in padded[rank::world]:
        metric.update(Detections(*(t[i : i + 1] for t in detections)), ids[i : i + 1])
    Path(folder, f"{rank}.json").write_text(json.dumps([metric.compute(), coco_results(metric.merged())]))
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_several_processes_equal_one(world: int, tmp_path: Path) -> None:
    truth, detections, ids = _quiet_on_rank_one(world)
    assert len(ids) % 2 == 1
    assert len(ids) % 3 != 0
    metric = CocoAP(truth)
    metric.update(detections, ids)
    expected = json.loads(json.dumps([metric.compute(), coco_results(metric.merged())]))
    in_processes(_one_process, world, tmp_path)
    for rank in range(world):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


def _with_a_gap(rank: int, world: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    truth, detections, ids = random_case(5)
    metric = CocoAP(truth)
    for i in range(rank, len(ids) - 1, world):  # nobody gives the last image
        metric.update(Detections(*(t[i : i + 1] for t in detections)), ids[i : i + 1])
    try:
        metric.compute()
    except ValueError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    distributed.destroy_process_group()


def test_every_process_hears_of_a_missing_image(tmp_path: Path) -> None:
    in_processes(_with_a_gap, 2, tmp_path)
    for rank in range(2):
        assert "1 of 11 images of the split never came" in (tmp_path / f"{rank}.txt").read_text()
