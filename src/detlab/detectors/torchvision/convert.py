"""torchvision's published detection models as detectors of this project: same architecture, same weights.

Two differences are kept on purpose. Background is the last class here and the first in torchvision. The RoI head here
has no box outputs for background (4 * 1025 parameters fewer), because they are neither trained nor read.

Anchors lie where torchvision puts them, since its weights were trained with those: where a stride does not divide the
canvas, the step between anchors is the canvas side divided by the map side (`steps="divided"`). Detections therefore
depend on the canvas that an image is padded to, as they do in torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from detlab.detectors.detector import Detector
from detlab.detectors.faster_rcnn import FasterRCNN
from detlab.detectors.retinanet import RetinaNet
from detlab.detectors.torchvision.ssd300 import SSD300, convert_ssd300, ssd300
from detlab.model import losses
from detlab.model.anchors import Anchors
from detlab.model.backbones import ResNet
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.detect import Detect, ProposalDetect
from detlab.model.heads import DenseHead, roi_head
from detlab.model.matchers import IoUMatcher
from detlab.model.necks import FPN
from detlab.model.pools import RoIAlign
from detlab.model.proposals import RPN
from detlab.model.samplers import AllSampler, RandomSampler

PUBLISHED_EPS = 0.0  # torchvision sets its frozen batch norms' eps to 0 for the first versions' COCO weights
ROI_SIDE = 7  # side of the pooled map that torchvision's RoI heads read
BETA = 1 / 9  # smooth L1 in both stages of torchvision's Faster R-CNN


def from_torchvision(
    name: str,
    state_dict: Mapping[str, Tensor] | None = None,
    num_classes: int = 91,
    *,
    frozen_bn_eps: float = PUBLISHED_EPS,
) -> Detector:
    """Build a torchvision detector from this project's parts and load torchvision's weights into it.

    Args:
        name: fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, retinanet_resnet50_fpn,
            retinanet_resnet50_fpn_v2 or ssd300_vgg16; with a state dict also resnet18, 34, 101 or 152 in place of
            resnet50, for torchvision's detectors over `resnet_fpn_backbone` of that depth.
        state_dict: a state dict of that torchvision model; None downloads the published COCO weights.
        num_classes: as torchvision counts: with background for Faster R-CNN and SSD; RetinaNet's 91 include an
            unused slot 0.
        frozen_bn_eps: eps of frozen batch norms; 0 for published weights, 1e-5 for a state dict of your own.

    Returns:
        A detector in evaluation mode; `detector.class_names` holds torchvision's category names where the counts
        agree (Faster R-CNN, SSD: label i is torchvision's i + 1; RetinaNet: the same label).

    Raises:
        ValueError: an unknown name, weights that do not fit, or no network.
    """
    published = re.sub(r"resnet(18|34|101|152)", "resnet50", name)
    if published not in (*_BUILDERS, SSD300):
        raise ValueError(f"from_torchvision does not know {name}; use one of {', '.join([*_BUILDERS, SSD300])}.")
    if state_dict is None and name != published:
        raise ValueError(f"torchvision publishes no weights of {name}; pass state_dict, or use {published}.")
    state = dict(state_dict) if state_dict is not None else _published(name)
    detector: Detector
    if name == SSD300:
        detector, converted = ssd300(num_classes), convert_ssd300(state)
    else:
        backbone = _resnet(int(name.split("resnet")[1].split("_")[0]), state, frozen_bn_eps)
        detector = _BUILDERS[published](backbone, num_classes, name.endswith("_v2"))
        converted = convert(name, state)
    own = detector.state_dict()
    lacking = [
        key
        for key, value in own.items()
        if key not in ("backbone.mean", "backbone.std")
        and (key not in converted or converted[key].shape != value.shape)
    ]
    if lacking:
        raise ValueError(
            f"state_dict does not fit {name} with num_classes={num_classes}: {len(lacking)} entries are missing or of "
            f"another shape (first: {', '.join(lacking[:3])}); give the model's own class count."
        )
    detector.load_state_dict({key: converted[key] for key in own if key in converted}, strict=False)
    detector.class_names = _class_names(published, detector.num_classes)
    return detector.eval()


def _resnet(depth: int, state: Mapping[str, Tensor], frozen_bn_eps: float) -> ResNet:
    """A ResNet with trainable batch norm if the state dict has `num_batches_tracked`, with frozen batch norm if not."""
    if any(key.endswith("num_batches_tracked") for key in state):
        return ResNet(depth=depth, norm="bn")
    return ResNet(depth=depth, norm="frozen_bn", norm_eps=frozen_bn_eps)


def convert(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under this project's names; accepts the older and the newer layout of torchvision."""
    two_stage = name.startswith("fasterrcnn")
    v2 = name.endswith("_v2")
    finest = 2 if two_stage else 3
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        new = _rename(key, finest, two_stage, v2)
        if re.fullmatch(r"roi_heads\.box_head\.(fc6|5)\.weight", key):
            value = by_location(value)
        if new == "head.cls.weight" or new == "head.cls.bias":
            value = torch.cat([value[1:], value[:1]]) if two_stage else value
        elif two_stage and new in ("head.box.weight", "head.box.bias"):
            value = value[4:]
        if new is not None:
            out[new] = value
    return out


def by_location(weight: Tensor) -> Tensor:
    """Weight [out, C * 49] of the first layer after a 7x7 RoI pool, reordered for features by row, column, channel."""
    return weight.unflatten(1, (-1, ROI_SIDE, ROI_SIDE)).permute(0, 2, 3, 1).flatten(1)


def _rename(key: str, finest: int, two_stage: bool, v2: bool) -> str | None:
    """This project's name of a torchvision entry; None for an entry that has no counterpart here."""
    if key.startswith("backbone.body."):
        return "backbone." + key.removeprefix("backbone.body.")
    if m := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:(\d)\.)?(\w+)", key):
        kind, level, sub, leaf = m.groups()
        place = "neck.lateral.C" if kind == "inner" else "neck.output.P"
        inner = f".{sub}" if two_stage and v2 else ""
        return f"{place}{finest + int(level)}{inner}.{leaf}"
    if m := re.fullmatch(r"backbone\.fpn\.extra_blocks\.(p\d\.\w+)", key):
        return f"neck.{m[1]}"
    if m := re.fullmatch(r"rpn\.head\.conv\.(?:(\d)\.0\.)?(\w+)", key):
        return f"rpn.head.cls_tower.{2 * int(m[1] or 0)}.{m[2]}"
    siblings = {"cls_logits": "cls", "bbox_pred": "box", "cls_score": "cls", "bbox_reg": "box"}
    if m := re.fullmatch(r"rpn\.head\.(cls_logits|bbox_pred)\.(\w+)", key):
        return f"rpn.head.{siblings[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"roi_heads\.box_head\.fc([67])\.(\w+)", key):
        return f"head.body.{1 if m[1] == '6' else 3}.{m[2]}"
    if m := re.fullmatch(r"roi_heads\.box_head\.([0-3])\.([01])\.(\w+)", key):
        return f"head.body.{3 * int(m[1]) + int(m[2])}.{m[3]}"
    if m := re.fullmatch(r"roi_heads\.box_head\.5\.(\w+)", key):
        return f"head.body.13.{m[1]}"
    if m := re.fullmatch(r"roi_heads\.box_predictor\.(cls_score|bbox_pred)\.(\w+)", key):
        return f"head.{siblings[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"head\.(classification|regression)_head\.conv\.(\d)\.(?:(\d)\.)?(\w+)", key):
        kind, layer, sub, leaf = m.groups()
        tower = "cls_tower" if kind == "classification" else "box_tower"
        if sub is None:  # the older layout numbers conv, relu, conv, relu ...
            return f"head.{tower}.{layer}.{leaf}"
        return f"head.{tower}.{(3 if v2 else 2) * int(layer) + int(sub)}.{leaf}"
    if m := re.fullmatch(r"head\.\w+_head\.(cls_logits|bbox_reg)\.(\w+)", key):
        return f"head.{siblings[m[1]]}.{m[2]}"
    return None


def _faster_rcnn(backbone: ResNet, num_classes: int, v2: bool) -> FasterRCNN:
    norm = "bn" if v2 else None
    rpn = partial(
        RPN,
        head=partial(DenseHead, width=None, depth=2 if v2 else 1, shared=True, predictor_kernel=1, prior=None),
        criterion=partial(Criterion, normalizer="sampled"),
        matcher=IoUMatcher(positive=0.7, negative=0.3, force_best=True),
        sampler=RandomSampler(size=256, positive_fraction=0.5),
        coder=BoxCoder(),
        cls_loss=losses.BCELoss(),
        box_loss=losses.SmoothL1Loss(beta=BETA),
        detect=ProposalDetect(pre_nms_train=2000, pre_nms_test=1000, post_nms_train=2000, post_nms_test=1000),
    )
    return FasterRCNN(
        num_classes=num_classes - 1,
        backbone=backbone,
        neck=partial(FPN, finest=2, extra="pool", norm=norm),
        anchors=Anchors(sizes=[32, 64, 128, 256, 512], offset=0.0, round_corners=True, steps="divided"),
        proposals=rpn,
        head=partial(roi_head, body="fc", depth=1 if v2 else 2, convs=4 if v2 else 0, norm=norm),
        pool=partial(RoIAlign, sampling_ratio=2),
        criterion=partial(Criterion, normalizer="sampled"),
        matcher=IoUMatcher(positive=0.5, negative=0.5, force_best=False),
        sampler=RandomSampler(size=512, positive_fraction=0.25),
        coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        cls_loss=losses.CrossEntropyLoss(),
        box_loss=losses.SmoothL1Loss(beta=BETA),
        detect=Detect(topk=None, min_size=1e-2),
    )


def _retinanet(backbone: ResNet, num_classes: int, v2: bool) -> RetinaNet:
    sizes = [int(s * 2 ** (i / 3)) for s in (32, 64, 128, 256, 512) for i in range(3)]
    return RetinaNet(
        num_classes=num_classes,
        backbone=backbone,
        neck=partial(FPN, finest=3, extra="conv_c" if v2 else "conv_p"),
        anchors=Anchors(sizes=sizes, offset=0.0, round_corners=True, steps="divided"),
        head=partial(DenseHead, width=256, depth=4, norm="gn" if v2 else None),
        criterion=partial(Criterion, normalizer="images"),
        matcher=IoUMatcher(positive=0.5, negative=0.4, force_best=True),
        sampler=AllSampler(),
        coder=BoxCoder(),
        cls_loss=losses.FocalLoss(),
        box_loss=losses.GIoULoss() if v2 else losses.L1Loss(),
        detect=Detect(topk=1000, max_detections=300),
    )


_BUILDERS: dict[str, Callable[[ResNet, int, bool], Detector]] = {
    "fasterrcnn_resnet50_fpn": _faster_rcnn,
    "fasterrcnn_resnet50_fpn_v2": _faster_rcnn,
    "retinanet_resnet50_fpn": _retinanet,
    "retinanet_resnet50_fpn_v2": _retinanet,
}


def _class_names(name: str, num_classes: int) -> tuple[str, ...]:
    categories = get_model_weights(name).COCO_V1.meta["categories"]
    if not name.startswith("retinanet"):
        categories = categories[1:]
    if len(categories) == num_classes:
        return tuple(categories)
    return tuple(f"class {i}" for i in range(num_classes))


def _published(name: str) -> dict[str, Tensor]:
    url = get_model_weights(name).COCO_V1.url
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"from_torchvision({name!r}) could not download {url} ({error}); fetch that file elsewhere and pass "
            f"state_dict=torch.load(PATH, weights_only=True)."
        ) from error
