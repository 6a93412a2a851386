"""Every option of every group composes and builds; what does not fit is refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from hydra.utils import instantiate

import detlab
from detlab.config.compose import compose_config, config_dir, config_hash, make_detector, plain_config
from detlab.config.rules import RULES, as_markdown, check
from detlab.errors import ConfigError
from detlab.training.lightning_module import DetectionModule
from tests.batches import make_batch

CONF = config_dir()
BASE = ["name=x", "paths.run_dir=/tmp/x"]
STAGE_OF = {
    "model/pool": "faster_rcnn",
    "model/proposals": "faster_rcnn",
    "model/arm": "refinedet",
    "model/obj_loss": "yolo",
}
HEADS = {
    "retinanet": "retinanet",
    "rpn": "retinanet",
    "roi": "faster_rcnn",
    "fc": "faster_rcnn",
    "conv_fc": "faster_rcnn",
    "sppnet": "sppnet",
    "ssd": "ssd",
    "yolo": "yolo",
    "yolov2": "yolov2",
    "yolo_local": "yolov1",
    "yolo_fc": "yolov1",
}
MODEL_OF_VARIANTS = {  # the others' folders begin with the model's name
    "fpn": "rpn",
    "focal": "retinanet",
    "loss": "retinanet",
    "roi_loss": "faster_rcnn",
    "schedule": "faster_rcnn",
}
NEEDS = {
    ("model/head", "tail"): ["model=faster_rcnn", "model/neck=none"],
    ("model/detect", "proposals"): ["model=rpn"],
    ("model/pool", "warp"): ["model=rcnn"],
    ("model/detect", "roi"): ["model=faster_rcnn"],
    ("training", "alternating"): ["model=faster_rcnn"],
    ("training", "svm"): ["model=sppnet"],
    ("model/anchors", "yolo_cells"): ["model=yolov1"],
    ("model/criterion", "yolo"): ["model=yolo"],
    ("model/criterion", "yolov2"): ["model=yolo"],
    ("model/criterion", "yolov1"): ["model=yolo"],
    ("model/box_loss", "cell"): ["model=yolo"],
    ("model/cls_loss", "softmax"): ["model=yolo"],
    ("model/coder", "cell"): ["model=yolov1"],
    ("model/coder", "direct"): ["model=yolo"],
    ("model/matcher", "cell"): ["model=yolo"],
    ("model/matcher", "responsible"): ["model=yolov1"],
    ("model/anchors", "ssd"): ["model=ssd"],
    ("model/anchors", "ssd512"): ["model=ssd"],
}


def options() -> list[tuple[str, str]]:
    """(group, option) of every YAML file below conf/, but for shared parts of other files."""
    found = []
    for file in sorted(CONF.rglob("*.yaml")):
        group = str(file.parent.relative_to(CONF))
        if group.startswith("variant/"):
            found.append(("variant", f"{file.parent.name}/{file.stem}"))
        elif group not in (".", "lean") and not group.endswith("/common"):
            found.append((group, file.stem))
    return found


def plain(*overrides: str) -> dict[str, Any]:
    return plain_config(
        compose_config("train", [*BASE, *overrides]),
        (
            "model",
            "optim",
            "lr_schedule",
            "data",
            "trainer",
            "callbacks",
            "augment",
            "init_from",
            "resume",
            "training",
            "tta",
        ),
    )


@pytest.mark.parametrize(("group", "option"), options(), ids=lambda v: v.replace("/", "."))
def test_every_option_composes_and_builds(group: str, option: str) -> None:
    choices = NEEDS.get((group, option), [])
    if group in STAGE_OF and not choices:
        choices = [f"model={STAGE_OF[group]}"]
    if group == "model/head" and not choices:
        choices = [f"model={HEADS[option]}"]
    if group == "variant":
        choices = [f"model={MODEL_OF_VARIANTS.get(option.split('/')[0]) or option.split('_')[0].split('/')[0]}"]
    config = plain(*choices, f"{group}={option}")
    if group == "debug" and option == "profiler":
        config["trainer"]["profiler"]["dirpath"] = "/tmp"
    check(config)
    config["model"]["backbone"]["weights"] = None  # papers' recipes download them
    with torch.device("meta"):
        detector = make_detector(config["model"], 3)
    assert sum(p.numel() for p in detector.parameters()) > 0
    for part in ("optim", "lr_schedule", "augment", "training"):
        assert callable(instantiate(config[part], _convert_="all"))
    assert all("_target_" in node for node in config["callbacks"].values() if node)


@pytest.mark.parametrize("name", [f.stem for f in sorted((CONF / "model").glob("*.yaml"))])
def test_every_model_gives_a_lightning_module_that_steps(name: str) -> None:
    config = plain(f"model={name}")
    detector = make_detector(config["model"], 3)
    module = DetectionModule(
        detector=detector,
        optim=instantiate(config["optim"], _convert_="all"),
        lr_schedule=instantiate(config["lr_schedule"], _convert_="all"),
        class_names=("a", "b", "c"),
        config=config,
    )
    assert isinstance(module, __import__("lightning").LightningModule)
    batch = make_batch([[[4, 4, 36, 30]]], [[0]], side=config["data"]["side"])
    module.log = module.log_dict = lambda *a, **k: None
    module._trainer = type("T", (), {"global_step": 0, "barebones": False, "log_every_n_steps": 50})()
    assert module.training_step(batch, 0).isfinite()


def test_one_key_per_choice() -> None:
    detector = detlab.build_detector(
        ["model=faster_rcnn", "model/backbone=resnet50", "model/neck=fpn_p2", "model/box_loss=giou"], num_classes=3
    )
    assert type(detector.criterion.box_loss).__name__ == "GIoULoss"
    assert type(detector.rpn.criterion.box_loss).__name__ == "SmoothL1Loss"
    both = detlab.build_detector(["model=faster_rcnn", "model/box_loss@model.proposals.box_loss=giou"], num_classes=3)
    assert type(both.rpn.criterion.box_loss).__name__ == "GIoULoss"


@pytest.mark.parametrize(
    ("model", "total"),
    [
        (["model=faster_rcnn", "model/backbone=resnet50"], 41_449_656),
        (["model=faster_rcnn", "model/backbone=resnet18"], 28_371_256),
        (["model=faster_rcnn", "model/backbone=resnet101"], 60_336_440),
        (["model=faster_rcnn", "model/backbone=resnet152"], 75_934_008),
    ],
)
def test_parameters_of_faster_rcnn_with_fpn(model: list[str], total: int) -> None:
    """torchvision's counts for 21 outputs, less its box outputs for background (4 x 1025 parameters).

    Those but ResNet-50's were counted with frozen batch norm, whose affine terms are buffers.
    """
    with torch.device("meta"):
        detector = detlab.build_detector(model, num_classes=20)
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    affine = 0 if total == 41_449_656 else sum(2 * m.num_features for m in norms)
    assert sum(p.numel() for p in detector.parameters()) == total - 4 * 1025 + affine


@pytest.mark.parametrize(("classes", "total"), [(80, 37_915_572), (20, 36_670_872)])
def test_parameters_of_the_papers_retinanet(classes: int, total: int) -> None:
    with torch.device("meta"):
        detector = detlab.build_detector(["model=retinanet", "model/backbone=resnet50"], num_classes=classes)
    batch_norm_affine = 53_120
    found = sum(p.numel() for p in detector.parameters())
    assert found in (total, total - batch_norm_affine, total + batch_norm_affine)


def test_parameters_of_faster_rcnn_c4() -> None:
    with torch.device("meta"):
        detector = detlab.build_detector(
            ["model=faster_rcnn", "model/backbone=resnet101", "model/neck=none", "model/anchors=rpn9",
             "model.proposals.head.width=512"],
            num_classes=20,
        )  # fmt: skip
    # The published 47,457,494 has frozen batch norm and box outputs for background (4 x 2049).
    affine = sum(m.weight.numel() + m.bias.numel() for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d))
    found = sum(p.numel() for p in detector.parameters())
    assert found + 4 * 2049 in (47_457_494, 47_457_494 + affine)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=retinanett"], r"model=retinanett does not exist; did you mean retinanet\?"),
        (["model/neck=ssd_extra"], r"model/neck=ssd_extra does not exist; did you mean ssd_extras\?"),
        (["model/neck=fnp"], r"model/neck=fnp does not exist; did you mean fpn\?"),
        (["model/nek=fpn"], r"no option model/nek; did you mean model/neck\?"),
        (["optim.lrr=1"], r"no option optim.lrr; did you mean optim.lr\?"),
        (["data.batchsize=1"], r"no option data.batchsize; did you mean data.batch_size\?"),
        (["sed=1"], r"no option sed; did you mean seed\?"),
        (["model.box_loss=giou"], r"use model/box_loss=giou"),
        (["model.proposals.box_loss=giou"], r"use model/box_loss@model.proposals.box_loss=giou"),
        (["model=ssd", "model/obj_loss=bce"], r"model/obj_loss is refused.*use model=yolo"),
        (["model=ssd", "model/arm=refinedet"], r"model/arm is refused.*use model=refinedet"),
        (["model.arm.box_loss=giou"], r"use model/box_loss@model.arm.box_loss=giou"),
        (["model=rpn", "model/pool=spp"], r"model/pool is refused.*use model=faster_rcnn"),
    ],
)
def test_typos_are_refused_with_the_nearest_name(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["detlab", *overrides])
    with pytest.raises(ConfigError, match=message):
        compose_config("train", [*BASE, *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone.norm=frozen_bn"], "model.backbone.norm=frozen_bn is refused"),
        (["trainer=ddp_cpu", "model.backbone.norm=sync_bn"], "norm=sync_bn is refused"),
        (["model=faster_rcnn", "model/sampler=hard_negative"], "model/sampler is refused"),
        (["model=retinanet", "model/head=roi"], "model/head is refused"),
        (["model=faster_rcnn", "model/head=retinanet"], "model/head is refused"),
        (["model=ssd", "model/head=roi"], "model/head is refused"),
        (["model=faster_rcnn", "model/head=ssd"], "model/head is refused"),
        (["model=retinanet", "model/anchors=ssd"], "model/anchors is refused"),
        (["model=rpn", "model/neck=ssd_extras", "model/anchors=ssd512"], "model/anchors is refused"),
        (["model=ssd", "model/neck=none"], "model/anchors is refused"),
        (["model=refinedet", "model/head@model.arm.head=rpn", "model/anchors=ssd"], "model/anchors is refused"),
        (["model=refinedet", "model/detect=proposals"], "model/detect is refused"),
        (["model=ssd", "model/detect=proposals"], "model/detect is refused"),
        (["model=retinanet", "model/detect=proposals"], "model/detect is refused"),
        (["model=rpn", "model/detect=retinanet"], "model/detect is refused"),
        (["model=faster_rcnn", "model/head=tail"], r"body=tail \(model/head=tail\) is refused"),
        (
            ["model=faster_rcnn", "model/neck=none", "model.neck.level=C5", "model/head=tail"],
            r"body=tail \(model/head=tail\) is refused",
        ),
        (["model=faster_rcnn", "model/neck=none", "model/head=tail", "model/pool=spp"], "model/pool is refused"),
        (["model=faster_rcnn", "model/head=conv_fc", "model/pool=spp"], "model/pool is refused"),
        (["model=fast_rcnn", "model/sampler=hard_negative"], "model/sampler is refused"),
        (["model=faster_rcnn", "model/sampler=ohem"], "model/sampler is refused"),
        (["model=sppnet", "model/head=retinanet"], "model/head is refused"),
        (["model=fast_rcnn", "model/pool=warp"], "model/pool is refused"),
        (["model=rcnn", "model/pool=roi_align"], "model/pool is refused"),
        (["model=rcnn", "model/neck=fpn"], "model/neck is refused"),
        (["model=retinanet", "data.proposals=grid"], "data.proposals is refused"),
        (["model=rpn", "training=alternating"], "training=alternating is refused"),
        (["model=fast_rcnn", "training=svm"], "training=svm is refused"),
        (["model=faster_rcnn", "training=alternating", "callbacks=none"], "callbacks.checkpoint is refused"),
        (["model.neck.top_down=false", "model.neck.lateral=false"], "model.neck.top_down=false is refused"),
        (["model.backbone.norm=gn", "model.backbone.weights=imagenet"], "model.backbone.norm=gn is refused"),
        (["model=retinanet", "model/matcher=cell"], "model/matcher or model/coder is refused"),
        (["model=retinanet", "model/criterion=yolo"], "model/criterion is refused"),
        (["model=faster_rcnn", "model/criterion@model.proposals.criterion=yolo"], "model/criterion is refused"),
        (["model=yolo", "model/criterion=positives"], "model/criterion is refused"),
        (["model=ssd", "model/coder=direct"], "model/matcher or model/coder is refused"),
        (["model=faster_rcnn", "model/coder@model.proposals.coder=cell"], "model/matcher or model/coder is refused"),
        (["model=yolo", "model/matcher=retinanet"], "model/matcher is refused"),
        (["model=retinanet", "model/box_loss=cell"], "model/box_loss is refused"),
        (["model=yolo", "model/coder=unit"], "model/box_loss is refused"),
        (["model=yolo", "model/anchors=yolo_cells"], "model/anchors is refused"),
        (["model=retinanet", "model/anchors=yolo_cells"], "model/anchors is refused"),
        (["model=retinanet", "model/cls_loss=softmax"], "model/cls_loss is refused"),
        (["model=refinedet", "model/cls_loss@model.arm.cls_loss=softmax"], "model/cls_loss is refused"),
        (["model=yolo", "model/head=ssd"], "model/head is refused"),
        (["model=retinanet", "model/head=yolo"], "model/head is refused"),
        (["model=yolo", "model/head=roi"], "model/head is refused"),
        (["model=yolo", "model/detect=proposals"], "model/detect is refused"),
        (["model=yolo", "data.proposals=grid"], "data.proposals is refused"),
        (["model=yolov1", "data.resize=letterbox"], "model/head is refused"),
        (["model=yolov1", "tta=multiscale"], "model/head is refused"),
        (["model=yolo", "model/neck=yolo_grid", "model/head=yolo_fc"], "model/head is refused"),
    ],
)
def test_rules_refuse_with_a_reason_and_an_option_that_works(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{message} \(.*\): .*; use ."):
        check(plain(*overrides))


def test_frozen_batch_norm_is_allowed_where_a_checkpoint_fills_it() -> None:
    check(plain("model.backbone.norm=frozen_bn", "init_from=some.ckpt"))


def test_the_docs_hold_the_rules() -> None:
    docs = CONF.parent / "docs" / "rules.md"
    assert docs.read_text().endswith(as_markdown())
    assert len(RULES) == as_markdown().count("\n") - 2


def test_parts_refuse_in_their_own_words() -> None:
    with pytest.raises(ConfigError, match=r"model\.matcher needs 0 <= negative <= positive"):
        detlab.build_detector(["model.matcher.negative=0.9"], num_classes=3)


def test_a_download_that_fails_is_told_in_the_parts_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(ConfigError, match=r"model.backbone.weights=imagenet could not download .* give its path"):
        detlab.build_detector(["model.backbone.weights=imagenet"], num_classes=3)


def test_the_hash_follows_the_choices_and_not_the_place() -> None:
    config = {"seed": 0, "paths": {"run_dir": "/a"}, "callbacks": {"x": "/a/checkpoints"}, "resume": False}
    moved = {"seed": 0, "paths": {"run_dir": "/b"}, "callbacks": {"x": "/b/checkpoints"}, "resume": True}
    assert config_hash(config) == config_hash(moved) != config_hash(config | {"seed": 1})


def test_own_options_need_no_change_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone in a package of one's own, in one file and one YAML; --config-dir is tried in test_running."""
    (tmp_path / "my_backbone.py").write_text(
        "from detlab.model.backbones import ResNet\n\nclass Mine(ResNet):\n    def __init__(self, **k):\n"
        "        super().__init__(depth=18, **k)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = plain()
    config["model"]["backbone"] = {"_target_": "my_backbone.Mine", "norm": "gn"}
    assert type(make_detector(config["model"], 2).backbone).__name__ == "Mine"


def test_numbers_for_another_part_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"samplers.AllSampler has no option .* leave one of the two out"):
        detlab.build_detector(["experiment=shapes", "model=retinanet"], num_classes=3)
