"""Coverage of boxes by anchors, fitted shapes, and the commands that print them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detlab
from detlab.commands.anchors import objections, report
from detlab.config.compose import compose_config, plain_config
from detlab.errors import ConfigError
from detlab.metrics.anchor_coverage import (
    AnchorStage,
    Placement,
    anchor_stage,
    coverage,
    coverage_report,
    thresholds_of,
)
from detlab.metrics.anchor_fit import fit_pairs, fit_shapes, shape_iou
from detlab.model.anchors import Anchors
from detlab.model.matchers import IoUMatcher
from detlab.tensors.structures import GroundTruth, Level
from tests.tiny import Tiny

SMALL = [
    "name=test",
    "data.cache_dir=null",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 12, val: 4, test: 4}",
]


def made(boxes: list[list[float]], size: tuple[int, int]) -> GroundTruth:
    count = len(boxes)
    corners = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=torch.tensor([3, 5]),
        sizes=torch.tensor([size, size]),
        box_image=torch.full((count,), 5),
        boxes=corners,
        labels=torch.zeros(count, dtype=torch.int64),
        area=(corners[:, 2:] - corners[:, :2]).prod(1),
        crowd=torch.zeros(count, dtype=torch.bool),
        difficult=torch.zeros(count, dtype=torch.bool),
        class_names=("a",),
        category_ids=(1,),
        file_names=("x", "y"),
    )


def stage(force_best: bool) -> AnchorStage:
    """Squares of 8 px on a grid of 8 px, and of 32 px on one of 32 px."""
    anchors = Anchors(sizes=[8, 32], ratios=[1.0])
    matcher = IoUMatcher(positive=0.5, negative=0.4, force_best=force_best)
    return AnchorStage(anchors, (Level("P3", 1, 8), Level("P5", 1, 32)), matcher)


def test_coverage_by_hand() -> None:
    """Images of 32 px are seen at 64: a box on an anchor, one half a step off (1/3), one of the coarse level."""
    truth = made([[4, 4, 8, 8], [14, 4, 18, 8], [0, 0, 16, 16]], (32, 32))
    place = Placement(target=lambda size: (64, 64), divisor=32, canvas=None)
    found = coverage(stage(force_best=False), truth, place)
    assert found.iou == pytest.approx([1, 1 / 3, 1])
    assert found.level.tolist() == [0, 0, 1]
    assert found.sides.tolist() == [[8, 8], [8, 8], [32, 32]]
    assert found.positives.tolist() == [1, 0, 1]
    assert found.shares == pytest.approx([2 / 68, 66 / 68, 0])
    assert coverage(stage(force_best=True), truth, place).positives.tolist() == [1, 2, 1]
    report = coverage_report(found, stage(False), np.array([False, False, True]))
    assert report["all"]["boxes"] == 2
    assert report["all"]["recall_0.5"] == report["all"]["without_positive"] == 0.5
    assert [row["boxes"] for row in report["by_level"]] == [2, 0]


def test_images_left_out_do_not_count() -> None:
    truth = made([[4, 4, 8, 8]], (32, 32))
    place = Placement(lambda size: size, 32, None)
    left_out = coverage(stage(False), truth, place, most_images=1)  # the first image, which has no box
    assert left_out.iou.tolist() == [-1]
    assert coverage_report(left_out, stage(False), np.array([False]))["all"] == {"boxes": 0}


@pytest.mark.parametrize("model", ["retinanet", "faster_rcnn", "rpn", "ssd", "refinedet"])
def test_every_family_with_anchors_says_so(model: str) -> None:
    with torch.device("meta"):
        detector = detlab.build_detector([f"model={model}"], num_classes=2)
    anchors, levels, matcher = anchor_stage(detector)
    assert len(anchors.per_level(levels, (320, 320))) == len(levels)
    assert matcher.positive == (0.7 if model in ("faster_rcnn", "rpn") else 0.5)


def test_shape_iou() -> None:
    assert shape_iou(np.array([[10.0, 20.0]]), np.array([[20.0, 10.0], [10.0, 20.0]])) == pytest.approx(
        np.array([[1 / 3, 1]])
    )


def test_exact_shapes_are_found_again() -> None:
    rng = np.random.default_rng(0)
    size, ratio = rng.choice([16.0, 50.0, 120.0], 300), rng.choice([0.5, 2.0], 300)
    sides = np.column_stack([size / np.sqrt(ratio), size * np.sqrt(ratio)])
    fit = fit_shapes(sides, 3, 2)
    assert fit.sizes == pytest.approx([16, 50, 120])
    assert fit.ratios == pytest.approx([0.5, 2])
    assert fit.iou == pytest.approx(1)
    octaves = fit_shapes(np.column_stack([size, size]), 1, 1, octaves=(1.0, 50 / 16, 120 / 16))
    assert octaves.sizes == pytest.approx([16], rel=0.02)


def config_of(out: Path, name: str, *overrides: str) -> dict[str, Any]:
    return plain_config(compose_config(name, [f"paths.run_dir={out}", *SMALL, *overrides]))


@pytest.mark.parametrize("model", ["retinanet", "ssd"])
def test_the_command_suggests_overrides_that_work(model: str, tmp_path: Path) -> None:
    result = report(config_of(tmp_path, "anchors", f"model={model}"))
    assert json.loads((tmp_path / "anchors.json").read_text())["now"] == result["now"]
    assert (tmp_path / "anchors.png").stat().st_size > 1000
    best = result["suggestions"][0]
    assert best["all"]["iou"] > result["now"]["all"]["iou"]
    changed = report(config_of(tmp_path, "anchors", f"model={model}", *shlex.split(best["overrides"])))
    assert changed["now"]["all"] == pytest.approx(best["all"])


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ({"iou": 0.8, "recall_0.5": 1.0, "positives": 40.0}, None),
        ({"iou": 0.8, "recall_0.5": 0.987, "positives": 40.0},
         "fewer boxes have an anchor from IoU 0.5 on (98.7%, now 100.0%)"),
        ({"iou": 0.8, "recall_0.5": 1.0, "positives": 1932.0}, "1932.0 positives per box (now 32.0) are more than 100"),
        ({"iou": 0.8, "recall_0.5": 1.0, "positives": 0.2}, "0.2 positives per box (now 32.0) are fewer than 1.0"),
        ({"iou": 0.7, "recall_0.5": 1.0, "positives": 32.0}, "the best IoU is not higher (0.700, now 0.700)"),
    ],
)  # fmt: skip
def test_better_anchors_lose_no_coverage_and_keep_positives_in_range(then: dict[str, float], told: str | None) -> None:
    against = objections({"iou": 0.7, "recall_0.5": 1.0, "positives": 32.0}, then, 0.5)
    assert against == ([] if told is None else [told])


def test_the_command_says_why_a_suggestion_is_no_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = ["model.anchors.sizes=[12,17,24,34,48]", "model.anchors.ratios=[0.5,0.7,1.0,1.4,2.0]"]
    result = report(config_of(tmp_path, "anchors", "model=retinanet", *wide))
    printed = " ".join(capsys.readouterr().out.split())
    for row in result["suggestions"]:
        assert f"{row['name']} (better):" in printed or f"no better: {'; '.join(row['why_not'])}" in printed
    assert [row["better"] for row in result["suggestions"]] == sorted([r["better"] for r in result["suggestions"]])[
        ::-1
    ]


def test_a_family_without_anchors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FastRCNN has no anchors"):
        report(config_of(tmp_path, "anchors", "model=fast_rcnn"))


def test_a_matcher_without_thresholds_is_judged_at_a_half() -> None:
    """A matcher of a user's own may assign by other rules than IoU."""

    class Nearest(torch.nn.Module):
        pass

    assert thresholds_of(Nearest()) == [0.5]
    assert thresholds_of(IoUMatcher(positive=0.7, negative=0.3, force_best=True)) == [0.3, 0.7]
    assert thresholds_of(IoUMatcher(positive=0.5, negative=0.5, force_best=True)) == [0.5]


def test_free_shapes_are_found_again() -> None:
    """Boxes scattered around three shapes; k-means with 1 - IoU finds them, whatever the order."""
    g = np.random.default_rng(0)
    shapes = np.array([[20.0, 50.0], [60.0, 30.0], [120.0, 110.0]])
    sides = np.repeat(shapes, 200, axis=0) * np.exp(g.normal(0, 0.05, (600, 2)))
    found, mean = fit_pairs(g.permutation(sides), 3)
    np.testing.assert_allclose(found, shapes, rtol=0.03)
    assert mean > 0.9
    assert mean == pytest.approx(float(shape_iou(sides, np.array(found)).max(1).mean()))
    assert fit_pairs(sides, 3)[1] >= fit_shapes(sides, 3, 1).iou  # one ratio for all cannot be as near


class Measured(Tiny):
    """A user's backbone that looks at its weights as it is made, and has no option `weights`."""

    def __init__(self) -> None:
        super().__init__()
        self.start = float(self.stem.weight.detach().abs().mean())


def test_anchors_of_a_backbone_that_needs_real_weights_and_takes_no_option(tmp_path: Path) -> None:
    config = config_of(tmp_path, "anchors", "model=retinanet")
    config["model"]["backbone"] = {"_target_": f"{__name__}.Measured"}
    assert report(config)["now"]["all"]["boxes"] > 0
