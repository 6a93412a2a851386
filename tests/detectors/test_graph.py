"""Exported graphs detect what the detector detects, in torch and in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detlab.config.compose import build_detector
from detlab.detectors import Detector
from detlab.detectors.graph import FORMATS, disagreement, example, export
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch

CANVAS = (64, 96)
TORCHVISION = "retinanet with torchvision's steps"
SMALL = {
    "retinanet": ["model.neck.width=32", "model.head.width=32", "model.head.depth=1"],
    TORCHVISION: ["model.neck.width=32", "model.head.width=32", "model.head.depth=1", "model.anchors.steps=divided"],
    "faster_rcnn": ["model.neck.width=32", "model.head.width=64", "model.proposals.detect.post_nms_test=50"],
    "yolo": ["model.neck.widths=[16, 16, 16]"],
    "yolov2": ["model.neck.width=32", "model.head.width=32", "model.head.prior=null", "model.detect.nms_threshold=0.9"],
    "yolov1": ["model/neck=none", "model.head.width=8", f"data.size={list(CANVAS)}"],
}


def batch_of(images: Tensor, sizes: Tensor) -> Batch:
    """The inputs of a graph as a batch."""
    return Batch(images, sizes, sizes, torch.zeros(len(images), dtype=torch.int64))


def detector_of(family: str) -> Detector:
    """A random detector whose scores differ, so that it detects something."""
    torch.manual_seed(0)
    detector = build_detector(
        [f"model={family.split()[0]}", *SMALL[family], "model.backbone.weights=null"], num_classes=3
    )
    for name, parameter in detector.named_parameters():
        if name.startswith(("head.cls.", "head.box.", "rpn.head.cls.", "rpn.head.box.")):
            torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else torch.nn.init.zeros_(parameter)
    if family.startswith("retinanet"):  # logits of a random network are in the thousands, and scores of 1 have no order
        with torch.no_grad():
            prediction = detector.eval().head(detector.features(batch_of(*example(1, CANVAS))))
            detector.head.cls.weight /= prediction.logits.std() / 2
            detector.head.box.weight /= prediction.deltas.std() / 0.3
    if family.startswith("yolo"):
        outs = [detector.head.out] if family == "yolov1" else list(detector.head.out.values())
        with torch.no_grad():
            for out in outs:
                torch.nn.init.normal_(out.weight, std=0.3)
            prediction = detector.eval().head(detector.features(batch_of(*example(1, CANVAS))))
            for out in outs:
                out.weight /= prediction.logits.std()
    return detector.eval()


@pytest.mark.parametrize(
    ("family", "format"),
    [
        ("retinanet", "onnx"),
        (TORCHVISION, "onnx"),
        ("faster_rcnn", "onnx"),
        ("retinanet", "torch_export"),
        ("faster_rcnn", "torch_export"),
        ("yolo", "onnx"),
        ("yolov2", "onnx"),
        ("yolov1", "onnx"),
        ("yolo", "torch_export"),
    ],
)
def test_a_graph_detects_what_the_detector_does(family: str, format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
        pytest.importorskip("onnxscript", reason="onnxscript is in the extra 'export'")
    detector = detector_of(family)
    images, sizes = example(1, CANVAS)
    sizes = torch.tensor([[64, 80]])  # padded on the right
    exported = export(detector, tmp_path / f"detector{FORMATS[format]}", format, (images, sizes))
    for seed in (1, 2):
        images = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = detector.detect(batch_of(images, sizes))
        assert expected.real.sum() >= 10
        assert disagreement(exported(images, sizes), expected) <= 1e-3


@pytest.mark.parametrize(("family", "format"), [("retinanet", "torch_export"), ("faster_rcnn", "onnx")])
def test_a_graph_may_leave_the_number_of_images_open(family: str, format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
        pytest.importorskip("onnxscript", reason="onnxscript is in the extra 'export'")
    detector = detector_of(family)
    path = tmp_path / f"detector{FORMATS[format]}"
    exported = export(detector, path, format, example(2, CANVAS), any_batch=True)
    for count in (1, 3):
        images, sizes = example(count, CANVAS)
        sizes[0] = torch.tensor([64, 80])
        with torch.no_grad():
            expected = detector.detect(batch_of(images, sizes))
        assert expected.real.sum(1).min() >= 10
        assert disagreement(exported(images, sizes), expected) <= 1e-3


def test_an_unknown_format_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format=coreml is not known; use one of onnx, torch_export"):
        export(detector_of("retinanet"), tmp_path / "x", "coreml", example(1, CANVAS))
