"""torchvision's ssd300_vgg16 with this project's parts and names; see `from_torchvision`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from detlab.detectors.ssd import SSD
from detlab.model import losses
from detlab.model.anchors import DefaultBoxes
from detlab.model.backbones import VGG16
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.detect import Detect
from detlab.model.heads import PerLevelHead
from detlab.model.matchers import BipartiteMatcher
from detlab.model.necks import SSDExtras
from detlab.model.samplers import HardNegativeSampler

SSD300 = "ssd300_vgg16"
MEAN = (0.48235, 0.45882, 0.40784)  # of RGB in [0, 1], from the Caffe weights it started from; their std is 1 of 255
LEVELS = ("C3", "fc7", "extra1", "extra2", "extra3", "extra4")
CONV5 = 24  # index of conv5_1 in VGG-16's features; torchvision counts 1 from pool4 on


def ssd300(num_classes: int) -> SSD:
    """torchvision's SSD300 for num_classes outputs, including background."""
    return SSD(
        num_classes=num_classes - 1,
        backbone=VGG16(),
        neck=partial(
            SSDExtras,
            blocks=[[256, 512, 3, 2, 1], [128, 256, 3, 2, 1], [128, 256, 3, 1, 0], [128, 256, 3, 1, 0]],
            l2_scales={"C3": 20.0},
        ),
        anchors=DefaultBoxes(
            scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            clip="sides",
        ),
        head=PerLevelHead,
        criterion=partial(Criterion, normalizer="positives"),
        matcher=BipartiteMatcher(),
        sampler=HardNegativeSampler(ratio=3),
        coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        cls_loss=losses.CrossEntropyLoss(),
        box_loss=losses.SmoothL1Loss(beta=1.0),
        detect=Detect(score_threshold=0.01, topk=None, topk_per_class=400, nms_threshold=0.45, max_detections=200),
    )


def convert_ssd300(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under this project's names; background becomes the last output of each anchor."""
    out = {
        "backbone.mean": 255 * torch.tensor(MEAN).view(1, 3, 1, 1),
        "backbone.std": torch.ones(1, 3, 1, 1),
    }
    boxes = "head.regression_head.module_list.{}.bias"
    for key, value in state.items():
        new = _rename(key)
        if new.startswith("head.cls."):
            anchors = len(state[boxes.format(key.split(".")[3])]) // 4
            value = value.unflatten(0, (anchors, -1)).roll(-1, dims=1).flatten(0, 1)
        out[new] = value
    return out


def _rename(key: str) -> str:
    """This project's name of a torchvision entry."""
    if key == "backbone.scale_weight":
        return "neck.l2.C3.scale"
    if m := re.fullmatch(r"backbone\.extra\.0\.7\.(\d)\.(\w+)", key):
        return f"neck.fc.{m[1]}.{m[2]}"
    if m := re.fullmatch(r"backbone\.extra\.0\.(\d)\.(\w+)", key):
        return f"backbone.features.{CONV5 - 1 + int(m[1])}.{m[2]}"
    if m := re.fullmatch(r"backbone\.extra\.(\d)\.(\d)\.(\w+)", key):
        return f"neck.blocks.extra{m[1]}.{'reduce' if m[2] == '0' else 'conv'}.0.{m[3]}"
    if m := re.fullmatch(r"head\.(classification|regression)_head\.module_list\.(\d)\.(\w+)", key):
        return f"head.{'cls' if m[1] == 'classification' else 'box'}.{LEVELS[int(m[2])]}.{m[3]}"
    return key
