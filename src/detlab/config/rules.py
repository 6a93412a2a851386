"""What is refused, in one table: each rule has a reason in shapes or papers, and names an option that works.

Whatever no rule refuses must train. `detlab rules` prints the table; docs/rules.md is its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from detlab.errors import ConfigError

ONE_STAGE = ("RetinaNet", "RPNDetector", "SSD", "RefineDet")
ON_PROPOSALS = ("FastRCNN", "SPPNet", "RCNN")  # of files or a grid
WITH_ROIS = ("FasterRCNN", *ON_PROPOSALS)


@dataclass(frozen=True)
class Rule:
    """One refusal."""

    name: str
    applies: Callable[[Mapping[str, Any]], bool]
    option: str  # at fault
    reason: str
    instead: str  # option that works


def _kind(node: Any) -> str:
    """Class name of a config node."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1] if isinstance(node, Mapping) else ""


def _model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("model") or {}


def _part(config: Mapping[str, Any], *path: str) -> Any:
    node: Any = _model(config)
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if node is not None else {}


def _fresh(config: Mapping[str, Any]) -> bool:
    """Whether weights start from the backbone's option, not from a checkpoint."""
    return not config.get("init_from") and not config.get("resume")


def _on_cpu(config: Mapping[str, Any]) -> bool:
    trainer = config.get("trainer") or {}
    return trainer.get("accelerator") == "cpu" and trainer.get("devices") not in (1, "1")


def _training(config: Mapping[str, Any]) -> str:
    return _kind(config.get("training"))


def _dense_detect(config: Mapping[str, Any]) -> bool:
    return _kind(_model(config)) in ("RetinaNet", "SSD", "RefineDet", *WITH_ROIS)


def _unequal_boxes(config: Mapping[str, Any]) -> bool:
    """Whether the anchors differ in number from level to level."""
    anchors = _part(config, "anchors")
    ratios = anchors.get("ratios") or []
    numbers = {len(row) for row in ratios if isinstance(row, list)}
    return _kind(anchors) == "DefaultBoxes" and len(numbers) > 1


RULES: tuple[Rule, ...] = (
    Rule(
        "frozen batch norm on random weights",
        lambda c: (
            _part(c, "backbone").get("norm") == "frozen_bn"
            and _part(c, "backbone").get("weights") is None
            and _fresh(c)
        ),
        "model.backbone.norm=frozen_bn",
        "with model.backbone.weights=null its statistics are those of nothing, and are never learned",
        "model.backbone.norm=bn, or model.backbone.weights=imagenet",
    ),
    Rule(
        "group norm with batch-norm weights",
        lambda c: _part(c, "backbone").get("norm") == "gn" and _part(c, "backbone").get("weights") is not None,
        "model.backbone.norm=gn",
        "pretrained weights were made for batch norm; its statistics have no place in a group norm",
        "model.backbone.norm=frozen_bn, or model.backbone.weights=null",
    ),
    Rule(
        "synchronised batch norm on CPUs",
        lambda c: _on_cpu(c) and ("sync_bn" in str(_model(c)) or bool((c.get("trainer") or {}).get("sync_batchnorm"))),
        "norm=sync_bn",
        "torch synchronises batch statistics only between GPUs",
        "model.backbone.norm=gn, or trainer=ddp",
    ),
    Rule(
        "loss-ranked sampling of RoIs",
        lambda c: _kind(_model(c)) in WITH_ROIS and _kind(_part(c, "sampler")) == "HardNegativeSampler",
        "model/sampler=hard_negative",
        "it ranks by loss, but RoIs are sampled before they are pooled and scored",
        "model/sampler=roi",
    ),
    Rule(
        "a RoI pool without RoIs",
        lambda c: _kind(_model(c)) in ONE_STAGE and bool(_part(c, "pool")),
        "model/pool",
        "a one-stage family reads its maps densely and pools no region",
        "model=faster_rcnn",
    ),
    Rule(
        "a RoI head on a dense family",
        lambda c: _kind(_model(c)) in ONE_STAGE and _kind(_part(c, "head")) == "roi_head",
        "model/head",
        "a RoI head reads vectors of pooled regions, a dense head maps",
        "model/head=retinanet, model/head=rpn or model/head=ssd",
    ),
    Rule(
        "a dense head on a RoI family",
        lambda c: _kind(_model(c)) in WITH_ROIS and _kind(_part(c, "head")) in ("DenseHead", "PerLevelHead"),
        "model/head",
        "a dense head reads maps, a RoI head vectors of pooled regions",
        "model/head=roi; the RPN's head is model/head@model.proposals.head=...",
    ),
    Rule(
        "unequal default boxes on a shared head",
        lambda c: (
            _unequal_boxes(c)
            and "DenseHead" in [_kind(_part(c, *path, "head")) for path in ((), ("proposals",), ("arm",))]
        ),
        "model/anchors",
        "four boxes a cell on some levels and six on others cannot come from one conv over all levels",
        "model/head=ssd (for an RPN: model/head@model.proposals.head=ssd), or model/anchors=ssd_formula",
    ),
    Rule(
        "default boxes of several levels on one map",
        lambda c: (
            _kind(_part(c, "anchors")) == "DefaultBoxes"
            and _part(c, "anchors").get("scales") is not None
            and _kind(_part(c, "neck")) in ("SingleMap", "SPP")
        ),
        "model/anchors",
        "it has one scale per level, and a single map would keep the smallest boxes alone",
        "model/neck=ssd_extras, or model/anchors=rpn9, which puts all its sizes on one map",
    ),
    Rule(
        "proposal selection as the last step",
        lambda c: _dense_detect(c) and _kind(_part(c, "detect")) == "ProposalDetect",
        "model/detect=proposals",
        "it suppresses without classes, as an RPN does",
        "model/detect=retinanet, model/detect=roi or model/detect=ssd",
    ),
    Rule(
        "class-wise selection of proposals",
        lambda c: (
            (_kind(_model(c)) == "RPNDetector" and _kind(_part(c, "detect")) == "Detect")
            or _kind(_part(c, "proposals", "detect")) == "Detect"
        ),
        "model/detect",
        "an RPN scores objects without classes and suppresses within levels",
        "model/detect=proposals",
    ),
    Rule(
        "the backbone's tail on a pyramid",
        lambda c: _part(c, "head").get("body") == "tail" and _kind(_part(c, "neck")) not in ("SingleMap", "SPP"),
        "model/head=tail",
        "conv5 (fc6 on VGG) reads one C4 map; a pyramid's maps have other channels and strides",
        "model/neck=none, or model/head=roi",
    ),
    Rule(
        "the backbone's tail on another map",
        lambda c: (
            _part(c, "head").get("body") == "tail"
            and _kind(_part(c, "neck")) in ("SingleMap", "SPP")
            and _part(c, "neck").get("level") != "C4"
        ),
        "model/head=tail",
        "conv5 (fc6 on VGG) continues C4 and reads its channels",
        "model.neck.level=C4, or model/head=fc",
    ),
    Rule(
        "the backbone's tail on a vector",
        lambda c: _part(c, "head").get("body") == "tail" and _kind(_part(c, "pool")) == "SpatialPyramidPool",
        "model/pool=spp",
        "it gives a vector of bins from several grids, but conv5 and fc6 read one 14x14 or 7x7 map",
        "model/pool=roi_align, or model/head=fc",
    ),
    Rule(
        "convs on a vector",
        lambda c: bool(_part(c, "head").get("convs")) and _kind(_part(c, "pool")) == "SpatialPyramidPool",
        "model/pool=spp",
        "it gives a vector, but the head's 3x3 convs read a map",
        "model/pool=roi_align, or model/head=fc",
    ),
    Rule(
        "crops of the image as a pool of maps",
        lambda c: _kind(_model(c)) in WITH_ROIS[:-1] and _kind(_part(c, "pool")) == "WarpedCrop",
        "model/pool=warp",
        "it cuts RoIs from the image and sends each through the network, but this family makes maps once per image",
        "model=rcnn, or model/pool=roi_align",
    ),
    Rule(
        "a pool of maps on R-CNN",
        lambda c: _kind(_model(c)) == "RCNN" and _kind(_part(c, "pool")) != "WarpedCrop",
        "model/pool",
        "R-CNN has no map of the whole image to pool from, only crops",
        "model/pool=warp, or model=fast_rcnn",
    ),
    Rule(
        "a pyramid of maps of one crop",
        lambda c: _kind(_model(c)) == "RCNN" and _kind(_part(c, "neck")) not in ("SingleMap", "SPP"),
        "model/neck",
        "R-CNN's crop is one object at one size, described by one map; which level would it be read from?",
        "model/neck=none",
    ),
    Rule(
        "proposals that nobody reads",
        lambda c: _kind(_model(c)) in ONE_STAGE and (c.get("data") or {}).get("proposals") is not None,
        "data.proposals",
        "this family places its own boxes",
        "data.proposals=null, or model=fast_rcnn",
    ),
    Rule(
        "a pyramid with maps nobody reads",
        lambda c: (
            _kind(_part(c, "neck")) == "FPN"
            and _part(c, "neck").get("top_down") is False
            and (_part(c, "neck").get("finest_only") or _part(c, "neck").get("lateral") is False)
        ),
        "model.neck.top_down=false",
        "without the top-down path the coarser maps feed nothing (finest_only), or the finer get nothing (lateral)",
        "model.neck.top_down=true",
    ),
    Rule(
        "alternating training of a family without an RPN and a RoI head",
        lambda c: _training(c) == "Alternating" and _kind(_model(c)) != "FasterRCNN",
        "training=alternating",
        "its four steps train an RPN and a detector on its proposals in turn",
        "model=faster_rcnn, or training=joint",
    ),
    Rule(
        "linear SVMs of a family without cached regions",
        lambda c: _training(c) == "LinearSVM" and _kind(_model(c)) not in ("RCNN", "SPPNet"),
        "training=svm",
        "R-CNN and SPPnet fit them on features of fixed regions; in other families the features train on",
        "model=rcnn or model=sppnet, or training=joint",
    ),
    Rule(
        "stages without checkpoints",
        lambda c: (
            _training(c) in ("Alternating", "LinearSVM")
            and "callbacks" in c
            and not (c["callbacks"] or {}).get("checkpoint")
        ),
        "callbacks.checkpoint",
        "a stage starts from what the one before left behind",
        "callbacks=default, or training=joint",
    ),
)


def check(config: Mapping[str, Any]) -> None:
    """Refuse a resolved config that a rule applies to.

    Raises:
        ConfigError: the first rule's sentence.
    """
    for rule in RULES:
        if rule.applies(config):
            raise ConfigError(f"{rule.option} is refused ({rule.name}): {rule.reason}; use {rule.instead}.")


def as_markdown() -> str:
    """The table, for the docs."""
    lines = ["| refused | option | reason | works |", "|---|---|---|---|"]
    lines += [f"| {r.name} | `{r.option}` | {r.reason} | {r.instead} |" for r in RULES]
    return "\n".join(lines) + "\n"
