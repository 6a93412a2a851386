# ruff: noqa: E501 - a case is a row
"""Calls from Python with a mistake each: a command line is refused before them, by type or range, or has no such way."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

import detlab
from detlab.commands.claim import _ask, _check_name
from detlab.commands.export import check_difference
from detlab.commands.rerun import rerun
from detlab.config.places import config_dir
from detlab.data.datamodule import DetectionData
from detlab.data.formats.csv_boxes import CsvBoxes
from detlab.data.formats.shapes import Shapes
from detlab.data.formats.voc import Voc
from detlab.data.images import read_image
from detlab.data.records import record
from detlab.data.splits import with_shares
from detlab.data.transforms import AspectJitter, Resize
from detlab.data.unlabelled import _pixels
from detlab.detectors import YOLO, FastRCNN, SPPNet
from detlab.detectors.graph import Exported, _onnx, export
from detlab.detectors.on_proposals import given
from detlab.detectors.pyramid import ImagePyramid
from detlab.detectors.rcnn import RCNN
from detlab.detectors.runtimes import InRuntime, check_runtime
from detlab.detectors.tta import TTA
from detlab.metrics.voc_ap import voc_measure
from detlab.model.anchors.default_boxes import DefaultBoxes
from detlab.model.anchors.shapes import CanvasBoxes
from detlab.model.anchors.shapes import Shapes as AnchorShapes
from detlab.model.anchors.tiled import Anchors
from detlab.model.backbones import VGG16, Darknet, ResNet
from detlab.model.cell_criterion import CellCriterion
from detlab.model.coders import BoxCoder
from detlab.model.heads.svd import truncate_svd
from detlab.model.heads.yolo import GridHead
from detlab.model.linear.ridge import BoxRidge
from detlab.model.losses.box import SmoothL1Loss
from detlab.model.losses.classification import FocalLoss
from detlab.model.losses.objectness import BCEObjectness, FocalObjectness
from detlab.model.necks.fpn import FPN
from detlab.model.necks.spp import SPPBlock
from detlab.model.necks.yolo import YOLOFPN, Reorg
from detlab.model.samplers import HardNegativeSampler, OHEMSampler, RandomSampler
from detlab.report.results import measure
from detlab.runs.checkpoints import Checkpoint
from detlab.runs.darknet import from_darknet
from detlab.runs.loading import detector_of
from detlab.runs.resuming import Start
from detlab.tensors.norms import norm_layer
from detlab.tensors.structures import Batch, Detections, Level, Prediction
from detlab.training.build import check_same_data, make_data
from detlab.training.callbacks.agreement import SameConfig
from detlab.training.callbacks.checkpoint import RunCheckpoint
from detlab.training.callbacks.nonfinite import NonFiniteGuard
from detlab.training.lightning_module import explain_single_value_norm
from detlab.training.machine import check_machine
from detlab.training.optim import effective_lr
from detlab.training.processes import DDP, check_alone
from detlab.training.stages.linear_svm import LinearSVM
from detlab.training.stages.stage import Length, Stages

LEVEL = Level("C4", 8, 16)
THREE = tuple(Level(f"C{i}", 8, 2**i) for i in (2, 3, 4, 5))
IMAGE = record(id=1, name="a.jpg", path=None, size=(8, 8), objects=[])
HEAD: dict[str, Any] = {"num_anchors": [2], "cls_loss": FocalLoss(), "obj_loss": BCEObjectness(), "num_classes": 3}


def stages(folder: Path, **config: Any) -> Stages:
    """Stages of a run in a folder, with resume=false unless said."""
    return Stages({"paths": {"run_dir": str(folder)}, "resume": False, "model": {}} | config, ("a",), "best")


def done(folder: Path) -> Any:
    """A stage whose result is no result."""
    (folder / "stages" / "1-a").mkdir(parents=True)
    (folder / "stages" / "1-a" / "done.json").write_text("[]")
    return stages(folder, resume=True).score(1)


def again(folder: Path) -> Any:
    """Stages in a folder that has some."""
    (folder / "stages").mkdir()
    return stages(folder)


def tail(backbone: Any) -> Any:
    """The last stage of a backbone, twice."""
    backbone.take_tail()
    return backbone.take_tail()


def shapes(**options: Any) -> DetectionData:
    """Generated pictures."""
    return DetectionData(
        source=Shapes(counts={"train": 1, "val": 1, "test": 1}), resize_default="short_side", size=32, **options
    )


def of_another_size() -> Any:
    """A head that is made for one canvas, on another."""
    head = GridHead(levels=[LEVEL], canvas=32, width=4, **HEAD)
    return head({"C4": torch.zeros(1, 8, 3, 3)})


def patched(where: str, new: Any, call: Callable[[], Any]) -> Any:
    """A call with something else in one place."""
    with patch(where, new):
        return call()


def failing(*_: Any, **__: Any) -> Any:
    """What meets no network."""
    raise OSError("no network")


def nothing(*_: Any, **__: Any) -> None:
    """A constructor that makes nothing."""


def unlike(folder: Path) -> Any:
    """A run that is repeated and fails."""
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("[seed=1]")
    failed = SimpleNamespace(returncode=3)
    return patched("detlab.commands.rerun.subprocess.run", lambda *_, **__: failed, lambda: rerun(folder, folder / "a"))


def unreadable(folder: Path) -> Any:
    """A text where an image should be."""
    (folder / "a.jpg").write_text("text")
    return read_image(folder / "a.jpg")


def alone() -> Any:
    """One process of two that each think that they are the run."""
    with patch.dict(os.environ, {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}):
        return check_alone(1)


def without_onnx(folder: Path) -> Any:
    """The format whose package is missing."""
    with patch.dict(sys.modules, {"onnxruntime": None}):
        return _onnx(None, folder / "x.onnx")


def without_openvino() -> Any:
    """The runtime whose package is missing."""
    with patch.dict(sys.modules, {"openvino": None}):
        return check_runtime("openvino", torch.device("cpu"))


def unlike_torch() -> Any:
    """A graph that finds no box where torch finds one."""
    one, none = torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), -1)
    found, expected = (Detections(torch.zeros(1, 1, 4), torch.zeros(1, 1), labels) for labels in (none, one))
    return InRuntime(SimpleNamespace(box_source="anchors"), "onnxruntime")._check(found, expected)


def lone_image() -> Any:
    """What torch says of a batch norm over one value."""
    with explain_single_value_norm(Batch(*[torch.zeros(1, 3, 8, 8)] * 4)):
        raise ValueError("Expected more than 1 value per channel when training")


def another_folder() -> Any:
    """Two ranks with the same config and different folders."""
    told = [("a", "x"), ("a", "y")]
    told_by = "detlab.training.callbacks.agreement.of_all"
    agreement = SameConfig(config_hash="a", run_dir="x")
    return patched(told_by, lambda _: told, lambda: agreement.setup(None, None, "fit"))


def strange() -> Any:
    """A model whose making fails in a way of its own."""
    checkpoint = Checkpoint(Path("x.ckpt"), {"model": {"_target_": "x", "backbone": {}}}, ("a",), (1,), {})
    return patched("detlab.runs.loading.validate_node", failing, lambda: detector_of(checkpoint))


CELL_PARTS = ("matcher", "coder", "obj_loss", "cls_loss", "box_loss")
YOLO_PARTS = dict.fromkeys(("num_classes", "backbone", "neck", "anchors", "head", "criterion", "detect", *CELL_PARTS))


def unknown_answer() -> Any:
    """A sweep whose results lack its answer."""
    run = SimpleNamespace(done=True, seed=0, metrics={"map": 0.5})
    with patch("detlab.report.results._runs", lambda _: [run]), patch("detlab.report.results.row_of", lambda *_: 0):
        return measure(Path("x"), [{}], [0], "foo")


ONE = {"_target_": "torch.nn.Identity"}
GPU = {"trainer": {"accelerator": "gpu", "devices": 9}, "logger": {}}
CALLS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda _: shapes(cache="foo"), r"data\.cache=foo is not known"),
    (lambda _: CsvBoxes(root=None, annotations={}, unlisted="foo"), r"data\.unlisted=foo is not known; use one of"),
    (lambda _: shapes()._name("foo"), r"There is no split 'foo'"),
    (lambda _: Shapes(counts={}, box_noise=2), r"data\.box_noise=2 is a share"),
    (
        lambda _: Voc.image(SimpleNamespace(max_pixels=9), IMAGE),
        r"a\.jpg has no file, and SimpleNamespace does not draw it",
    ),
    (lambda _: with_shares({"train": [IMAGE]}, val=1, test=0, seed=0), r"data\.val_fraction=1 is no share"),
    (lambda _: Resize(mode="foo", size=1), r"data\.resize=foo is not known"),
    (lambda _: AspectJitter(jitter=2), r"augment\.jitter=2 must be a share"),
    (lambda _: _pixels(np.zeros((4, 4, 7), np.uint8), 99), r"predict\(\) takes paths"),
    (lambda _: export(nn.Identity(), Path("x"), "foo", ()), r"format=foo is not known"),
    (lambda _: given(Batch(*[torch.zeros(1)] * 4)), r"This family reads Batch\.proposals"),
    (lambda _: Batch(*[torch.zeros(1)] * 4).truth, r"This batch has no targets"),
    (lambda _: Prediction(torch.zeros(1), torch.zeros(1)).scored, r"model/head gives no objectness"),
    (lambda _: ImagePyramid([]), r"model\.test_scales=\[\] needs sides in px"),
    (
        lambda _: RCNN.pool.fget(SimpleNamespace(head=SimpleNamespace(pool=nn.Identity()))),
        r"model/pool gives a Identity",
    ),
    (lambda _: TTA(nn.Identity(), scales=[]), r"tta\.scales=\[\] needs positive factors"),
    (lambda _: TTA(SimpleNamespace(selection=None), flip=True), r"tta merges the views by NMS, and SimpleNamespace"),
    (lambda _: voc_measure(SimpleNamespace(voc_ap="foo")), r"data\.voc_ap=foo is not known"),
    (lambda _: DefaultBoxes(clip="foo", scales=[0.1, 0.2], ratios=[2]), r"model\.anchors\.clip=foo is not known"),
    (lambda _: DefaultBoxes(scales=[0.1, 0.2], ratios=[0.5]), r"model\.anchors\.ratios takes numbers above 1"),
    (lambda _: AnchorShapes(shapes=[]), r"model\.anchors\.shapes needs pairs"),
    (lambda _: CanvasBoxes(boxes=0), r"model\.anchors\.boxes=0 must be at least 1"),
    (lambda _: Anchors(sizes=[]), r"model\.anchors needs positive sizes"),
    (lambda _: ResNet(depth=18, frozen_stages=9), r"model\.backbone\.frozen_stages=9 must"),
    (lambda _: ResNet(depth=19), r"model\.backbone\.depth=19 is not a ResNet"),
    (lambda _: ResNet(depth=18, norm="gn", weights="x"), r"model\.backbone\.norm=gn cannot take batch-norm"),
    (lambda _: tail(ResNet(depth=18)), r"The backbone has given conv5 away"),
    (lambda _: VGG16(norm="gn", weights="x"), r"model\.backbone\.norm=gn cannot take pretrained"),
    (lambda _: Darknet(name="foo"), r"model\.backbone\.name=foo is not known"),
    (lambda _: Darknet(name="darknet19", norm="gn", weights="x"), r"model\.backbone\.norm=gn cannot take batch-norm"),
    (lambda _: tail(Darknet(name="darknet19")), r"The backbone has given its last stage away"),
    (lambda _: norm_layer("foo", "model.neck.norm"), r"model\.neck\.norm=foo is not known"),
    (lambda _: BoxCoder(weights=[1, 2]), r"model\.coder\.weights needs four positive numbers"),
    (lambda _: truncate_svd(nn.Sequential(nn.Linear(4, 4)), [1, 2]), r"ranks=\[1, 2\] names 2 layers"),
    (lambda _: truncate_svd(nn.Sequential(nn.Linear(4, 4)), [9]), r"rank 9 of a layer of \(4, 4\)"),
    (lambda _: GridHead(levels=[LEVEL], canvas=32, body="foo", **HEAD), r"model\.head\.body=foo is not known"),
    (lambda _: of_another_size(), r"model\.head is made for a canvas of \[32, 32\] px"),
    (lambda _: BoxRidge(penalty=0), r"training\.ridge_lambda=0 must be positive"),
    (lambda _: SmoothL1Loss(beta=-1), r"model\.box_loss\.beta must not be negative"),
    (lambda _: FocalLoss(gamma=-1), r"model\.cls_loss needs gamma >= 0"),
    (lambda _: BCEObjectness(positive=-1), r"model\.obj_loss needs weights"),
    (lambda _: FocalObjectness(gamma=-1), r"model\.obj_loss needs gamma >= 0"),
    (lambda _: FPN(levels=THREE, extra="foo"), r"model\.neck\.extra=foo is not known"),
    (lambda _: FPN(levels=THREE, top_down=False, lateral=False), r"model\.neck\.top_down=false with"),
    (lambda _: SPPBlock(8, [2]), r"model\.neck\.kernels needs odd sides"),
    (lambda _: Reorg("foo"), r"model\.neck\.reorg=foo is not known"),
    (lambda _: YOLOFPN(levels=THREE, widths=(1, 2)), r"model\.neck\.widths=\[1, 2\] needs three numbers"),
    (lambda _: RandomSampler(size=0, positive_fraction=0.5), r"model\.sampler needs size >= 1"),
    (lambda _: HardNegativeSampler(ratio=0), r"model\.sampler\.ratio must be positive"),
    (lambda _: OHEMSampler(size=0), r"model\.sampler\.size must be at least 1"),
    (lambda _: from_darknet("foo.weights"), r"the name foo\.weights is none of"),
    (lambda _: RunCheckpoint(dirpath="x", monitor="m", every_n_steps=0), r"callbacks\.checkpoint\.every_n_steps=0"),
    (lambda _: RunCheckpoint.folder.fget(SimpleNamespace(dirpath=None)), r"callbacks\.checkpoint\.dirpath is not set"),
    (lambda _: NonFiniteGuard(check_every=99), r"callbacks\.nonfinite\.check_every=99 must lie"),
    (lambda _: effective_lr(1, 1, 1, "foo"), r"optim\.lr_scaling=foo is not known"),
    (lambda _: DDP(timeout_s=-1), r"trainer\.strategy\.timeout_s=-1 must be a positive number"),
    (lambda _: LinearSVM(fine_tune={}, dtype="foo"), r"training\.dtype=foo is not known"),
    (lambda folder: Stages({"paths": {"run_dir": folder}}, ("a",), "foo"), r"training\.hand_over=foo is not known"),
    (
        lambda folder: Stages(
            {"paths": {"run_dir": str(folder)}, "resume": False, "model": {}, "optim": {"_target_": "mine.sgd"}},
            ("a",),
            "best",
            lengths=[Length(), Length(lr=0.1)],
        ),
        r"A stage of training sets lr=0\.1, but the optimiser mine\.sgd has no option lr; set the stage's lr to null",
    ),
    (
        lambda _: detlab.build_detector(
            [
                "model=fast_rcnn",
                "model.backbone.weights=null",
                "model.head._target_=tests.config.own_parts.no_roi_head",
            ],
            num_classes=2,
        ),
        r"model\.head gives a Identity, but a family that reads RoIs needs a RoIHead; subclass",
    ),
    (again, r"holds the stages of an earlier run"),
    (done, r"holds no stage's result"),
    (lambda _: detlab.from_torchvision("foo"), r"from_torchvision does not know foo"),
    (lambda _: detlab.from_torchvision("fasterrcnn_resnet18_fpn"), r"torchvision publishes no weights of"),
    (lambda _: patched("builtins.input", lambda _: "n", lambda: _ask(Path("x"))), r"x holds no run; give the folder"),
    (
        lambda _: _check_name("../x"),
        r"name=\.\./x leads out of the folder of outputs; give a place by hydra\.run\.dir=FOLDER",
    ),
    (lambda _: check_difference("onnx", 1.0), r"format=onnx gives other detections"),
    (lambda _: patched("pathlib.Path.is_file", lambda _: False, config_dir), r"The configs are not where they belong"),
    (
        lambda _: check_same_data(Start(Path("x.ckpt"), 1, ("a", "b")), ("a", "c"), "f"),
        r"resume=true would go on with x\.ckpt on data with other classes \(class 2 is c, not b\); give the data set of",
    ),
    (lambda _: make_data({"augment": ONE, "model": ONE}), r"model\._target_=torch\.nn\.Identity is no family"),
    (unlike, r"ended with exit status 3"),
    (lambda _: read_image(Path("/nope.jpg")), r"cannot be opened"),
    (lambda _: _pixels("/nope.jpg", 99), r"/nope\.jpg: cannot be opened \(FileNotFoundError\)"),
    (lambda _: Anchors(sizes=[8], steps="foo"), r"model\.anchors\.steps=foo is not known; use one of stride"),
    (unreadable, r"not a readable image"),
    (lambda _: alone(), r"torchrun or srun started this command as process"),
    (
        lambda _: patched("torch.cuda.device_count", lambda: 2, lambda: check_machine(GPU)),
        r"trainer\.devices=9 is more than the 2 GPUs",
    ),
    (without_onnx, r"format=onnx needs onnxruntime"),
    (
        lambda _: without_openvino(),
        r"runtime=openvino needs openvino; install detlab\[openvino\], or use runtime=torch",
    ),
    (lambda _: unlike_torch(), r"runtime=onnxruntime gives other detections than torch \(difference inf\)"),
    (
        lambda _: InRuntime(FastRCNN.__new__(FastRCNN), "openvino"),
        r"runtime=openvino cannot run FastRCNN, whose proposals",
    ),
    (lambda _: detlab.load("/nope", precision="foo"), r"precision=foo is not known; use one of fp32, bf16"),
    (lambda _: Exported(FastRCNN.__new__(FastRCNN)), r"FastRCNN reads proposals that come with each image"),
    (lambda _: lone_image(), r"leaves a batch norm one value per channel"),
    (lambda _: another_folder(), r"Rank 1 has the run folder y, rank 0 has x"),
    (lambda _: unknown_answer(), r"answer=test/foo is in no result; there are map"),
    (lambda _: strange(), r"holds a model that cannot be built"),
    (
        lambda _: patched(
            "torch.hub.load_state_dict_from_url", failing, lambda: detlab.from_torchvision("ssd300_vgg16")
        ),
        r"could not download",
    ),
    (
        lambda _: patched("detlab.detectors.on_proposals.ProposalDetector.__init__", nothing, lambda: RCNN(chunk=0)),
        r"model\.chunk=0 must",
    ),
    (
        lambda _: patched(
            "detlab.detectors.on_proposals.ProposalDetector.__init__", nothing, lambda: SPPNet(train_sizes=[])
        ),
        r"model\.train_sizes=\[\] needs",
    ),
    (
        lambda _: patched(
            "detlab.detectors.detector.Detector.__init__", nothing, lambda: YOLO(pad_value=300, **YOLO_PARTS)
        ),
        r"model\.pad_value=300 must",
    ),
    (
        lambda _: CellCriterion(normalizer="foo", **dict.fromkeys(CELL_PARTS)),
        r"model\.criterion\.normalizer=foo is not known here",
    ),
]
