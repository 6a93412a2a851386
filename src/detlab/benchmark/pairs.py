"""The two sides of a comparison: a detlab detector and torchvision's, with equal weights and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detlab.benchmark.options import OptionError
from detlab.detectors.detector import Detector
from detlab.detectors.torchvision.convert import from_torchvision
from detlab.tensors.structures import Batch, Targets

SSD_SIDE = 300  # px; the only canvas size of torchvision's SSD300


class Pair(NamedTuple):
    """Both detectors, on the same device."""

    ours: Detector
    theirs: nn.Module
    shift: int  # label of our class 0 in torchvision


def make_pair(model: str, *, classes: int, side: int, device: torch.device, norm: str = "bn") -> Pair:
    """Build both sides of a model with equal random weights and all layers trainable.

    Args:
        model: one of `MODELS`.
        classes: number of classes including background, as in torchvision.
        side: side of the square canvas, px.
        norm: norm of the backbone: bn (trained) or frozen_bn (as in fine-tuning).

    Raises:
        OptionError: the model or norm is unknown, or the canvas does not suit SSD300.
    """
    if model not in MODELS:
        raise OptionError(f"model={model} is not known; use one of {', '.join(MODELS)}.")
    if norm not in ("bn", "frozen_bn"):
        raise OptionError(f"norm={norm} is not known; use bn or frozen_bn.")
    if model == "ssd300" and side != SSD_SIDE:
        raise OptionError(f"side={side} does not fit model=ssd300, which takes one canvas; use side={SSD_SIDE}.")
    torch.manual_seed(0)
    name, build = MODELS[model]
    layer = nn.BatchNorm2d if norm == "bn" else FrozenBatchNorm2d
    theirs = build(classes, {"min_size": side, "max_size": side}, layer)
    ours = from_torchvision(name, theirs.state_dict(), classes, frozen_bn_eps=1e-5)
    return Pair(ours.to(device), theirs.to(device), 0 if name.startswith("retinanet") else 1)


def _faster_rcnn(depth: int) -> Callable[..., nn.Module]:
    def build(classes: int, sizes: dict[str, int], norm: type[nn.Module]) -> nn.Module:
        backbone = resnet_fpn_backbone(
            backbone_name=f"resnet{depth}", weights=None, norm_layer=norm, trainable_layers=5
        )
        return detection.FasterRCNN(backbone, classes, **sizes)

    return build


def _retinanet(depth: int) -> Callable[..., nn.Module]:
    def build(classes: int, sizes: dict[str, int], norm: type[nn.Module]) -> nn.Module:
        backbone = resnet_fpn_backbone(
            backbone_name=f"resnet{depth}",
            weights=None,
            norm_layer=norm,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        return detection.RetinaNet(backbone, classes, **sizes)

    return build


def _ssd300(classes: int, sizes: dict[str, int], norm: type[nn.Module]) -> nn.Module:
    return detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes, trainable_backbone_layers=5)


MODELS: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "faster_rcnn_r18": ("fasterrcnn_resnet18_fpn", _faster_rcnn(18)),
    "faster_rcnn_r50": ("fasterrcnn_resnet50_fpn", _faster_rcnn(50)),
    "retinanet_r18": ("retinanet_resnet18_fpn", _retinanet(18)),
    "retinanet_r50": ("retinanet_resnet50_fpn", _retinanet(50)),
    "ssd300": ("ssd300_vgg16", _ssd300),
}


def make_images(batch: int, side: int, boxes: int, classes: int, device: torch.device) -> Batch:
    """Noise images with random boxes of 16 px to 60 % of the canvas; labels below `classes` - 1."""
    g = torch.Generator().manual_seed(3)
    size = 16 + torch.rand(batch, boxes, 2, generator=g) * (0.6 * side - 16)
    low = torch.rand(batch, boxes, 2, generator=g) * (side - size)
    labels = torch.randint(0, classes - 1, (batch, boxes), generator=g)
    no = torch.zeros(batch, boxes, dtype=torch.bool)
    targets = Targets(torch.cat([low, low + size], dim=2), labels, size.prod(2), no, no)
    sizes = torch.full((batch, 2), side)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=g)
    return Batch(images, sizes, sizes, torch.arange(batch), targets).to(device)


def as_lists(batch: Batch, shift: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The same batch in torchvision's form: float images in [0, 1] and one dict per image."""
    rows = zip(batch.truth.boxes, batch.truth.labels, strict=True)
    return list(batch.images.float() / 255), [{"boxes": b, "labels": n + shift} for b, n in rows]


SPREAD = {  # {part of a predictor's name: standard deviation at which its scores differ but do not saturate}
    "classification_head.module_list": 0.005,
    "regression_head.module_list": 0.005,
    "cls_score": 1.0,
    "cls_logits": 0.05,
    "bbox": 0.05,
}


def spread_scores(model: nn.Module) -> None:
    """Change a random torchvision model so that its scores differ and it detects objects."""
    g = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        std = next((value for part, value in SPREAD.items() if part in name), None)
        if std is not None:
            parameter.data.copy_(torch.randn(parameter.shape, generator=g) * std)
        elif name.endswith(("bn3.weight", "bn2.weight")):
            parameter.data.fill_(0.2)  # small residual branches keep activations near 1


def copy_weights(pair: Pair, model: str, classes: int) -> Pair:
    """The pair with torchvision's current weights copied to our side."""
    device = next(pair.theirs.parameters()).device
    ours = from_torchvision(MODELS[model][0], pair.theirs.state_dict(), classes, frozen_bn_eps=1e-5)
    return pair._replace(ours=ours.to(device))


def set_selection(pair: Pair, options: dict[str, Any]) -> None:
    """Set the same final selection on both sides: score_threshold, nms_threshold, max_detections, topk."""
    theirs = getattr(pair.theirs, "roi_heads", pair.theirs)
    names = {
        "score_threshold": "score_thresh",
        "nms_threshold": "nms_thresh",
        "max_detections": "detections_per_img",
        "topk": "topk_candidates",
    }
    for key, value in options.items():
        setattr(pair.ours.final, key, value)
        setattr(theirs, names[key], value)
