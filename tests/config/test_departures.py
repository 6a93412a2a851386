"""What docs/families.md says of the defaults of RetinaNet, RPN and Faster R-CNN, by the configs and the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detlab.config.compose import compose_config, plain_config
from detlab.model.backbones import ResNet
from detlab.model.coders import BoxCoder
from detlab.model.detect import ProposalDetect

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text()


def value(config: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (
            "retinanet",
            {
                "model.box_loss.beta": 1 / 9,
                "model.criterion.normalizer": "positives",
                "model.matcher.force_best": True,
                "model.matcher.positive": 0.5,
                "model.matcher.negative": 0.4,
                "model.detect.max_detections": 100,
                "model.detect.topk": 1000,
                "model.neck.extra": "conv_c",
                "model.anchors.offset": 0.5,
                "model.anchors.steps": "stride",
            },
        ),
        (
            "rpn",
            {
                "model.box_loss.beta": 1 / 9,
                "model.cls_loss._target_": "detlab.model.losses.BCELoss",
                "model.criterion.normalizer": "sampled",
                "model.drop_crossing": False,
                "model.detect.pre_nms_train": 2000,
                "model.detect.pre_nms_test": 1000,
                "model.detect.post_nms_train": 2000,
                "model.detect.post_nms_test": 1000,
                "model.detect.min_size": 1e-3,
                "model.neck.extra": "pool",
            },
        ),
        (
            "faster_rcnn",
            {
                "model.box_loss.beta": 1 / 9,
                "model.proposals.box_loss.beta": 1 / 9,
                "model.criterion.normalizer": "sampled",
                "model.sampler.size": 512,
                "model.matcher.negative_from": 0.0,
                "model.pool.sampling_ratio": 2,
                "model.pool.aligned": False,
                "model.detect.nms_threshold": 0.5,
                "lr_schedule._target_": "detlab.training.schedules.cosine",
                "trainer.gradient_clip_val": 10.0,
                "model.backbone.norm": "bn",
            },
        ),
    ],
)
def test_defaults_are_those_of_the_page(model: str, values: dict[str, Any]) -> None:
    config = plain_config(compose_config("train", ["name=x", "paths.run_dir=/x", f"model={model}"]))
    assert {path: value(config, path) for path in values} == values
    assert f"(`model={model}`)" in PAGE


@pytest.mark.parametrize("depth", [50, 101])
def test_bottlenecks_have_their_stride_in_the_3x3(depth: int) -> None:
    with torch.device("meta"):
        block = ResNet(depth=depth).layer2[0]
    assert (block.conv1.stride, block.conv2.kernel_size, block.conv2.stride) == ((1, 1), (3, 3), (2, 2))


def test_an_rpn_drops_small_boxes_after_the_highest_scores_are_taken() -> None:
    """Two highest of one level: the first is too small and goes, and the third, which is large, was not among them."""
    detect = ProposalDetect(pre_nms_train=2, pre_nms_test=2, post_nms_train=9, post_nms_test=9, min_size=16)
    anchors = torch.tensor([[[0.0, 0, 10, 10], [-30, 0, 20, 40], [50, 50, 90, 90]]])
    scores = torch.tensor([[0.9, 0.8, 0.7]])
    sizes = torch.tensor([[100, 100]])
    found = detect(scores, torch.zeros(1, 3, 4), anchors, BoxCoder(), sizes, [3], for_training=False)
    assert found.boxes.tolist() == [[[0, 0, 20, 40]]]  # clipped before its sides are looked at
    found = detect(scores, torch.zeros(1, 3, 4), anchors, BoxCoder(), sizes, [2, 1], for_training=False)
    assert found.scores[0].tolist() == pytest.approx([0.8, 0.7])  # two of each level
