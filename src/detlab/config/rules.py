"""Table of the refused combinations: each rule gives a reason (shapes or a paper) and an option that works.

A config that no rule refuses must train. `detlab rules` prints the table; docs/rules.md is its output. Rules read
class attributes (facts such as `Detector.reads` and `Neck.single_map`) of the class that a `_target_` names, never
its name, so subclasses and families from a user's own package are treated like the built-in ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detlab.config.cell_rules import CELL_RULES
from detlab.config.facts import (
    Rule,
    any_stage,
    fact,
    family,
    fresh,
    mines_without_best,
    model_of,
    one_map,
    one_training_size,
    part,
    pools,
    reads_rois,
    several_cpu_processes,
    unequal_boxes,
)
from detlab.errors import ConfigError

RULES: tuple[Rule, ...] = (
    Rule(
        "frozen batch norm on random weights",
        lambda c: (
            part(c, "backbone").get("norm") == "frozen_bn" and part(c, "backbone").get("weights") is None and fresh(c)
        ),
        "model.backbone.norm=frozen_bn",
        "with model.backbone.weights=null its statistics stay 0 and 1, and are never learned",
        "model.backbone.norm=bn, or model.backbone.weights=imagenet",
    ),
    Rule(
        "group norm with batch-norm weights",
        lambda c: part(c, "backbone").get("norm") == "gn" and part(c, "backbone").get("weights") is not None,
        "model.backbone.norm=gn",
        "pretrained weights were made for batch norm; its statistics have no place in a group norm",
        "model.backbone.norm=frozen_bn, or model.backbone.weights=null",
    ),
    Rule(
        "synchronised batch norm on CPUs",
        lambda c: (
            several_cpu_processes(c)
            and ("sync_bn" in str(model_of(c)) or bool((c.get("trainer") or {}).get("sync_batchnorm")))
        ),
        "norm=sync_bn",
        "torch synchronises batch statistics only between GPUs",
        "model.backbone.norm=gn, or trainer=ddp",
    ),
    Rule(
        "loss-ranked sampling of RoIs",
        lambda c: reads_rois(c) and bool(fact(part(c, "sampler"), "ranks_by_loss")),
        "model/sampler",
        "it ranks by loss, but RoIs are sampled before they are pooled and scored",
        "model/sampler=roi",
    ),
    Rule(
        "negatives mined for positives that may not be there",
        mines_without_best,
        "force_best=false",
        "the sampler counts negatives by the positives of their image: where no anchor reaches model.matcher.positive, "
        "the loss is exactly 0",
        "model.matcher.force_best=true, model/matcher=ssd, or model/sampler=all",
    ),
    Rule(
        "a RoI pool without RoIs",
        lambda c: family(c, "reads") == "maps" and bool(part(c, "pool")),
        "model/pool",
        "a one-stage family reads its maps densely and pools no region",
        "model=faster_rcnn",
    ),
    Rule(
        "a RoI head on a dense family",
        lambda c: family(c, "reads") == "maps" and fact(part(c, "head"), "reads") == "vectors",
        "model/head",
        "a RoI head reads vectors of pooled regions, a dense head maps",
        "model/head=retinanet, model/head=rpn or model/head=ssd, or with model=yolo model/head=yolo",
    ),
    Rule(
        "a dense head on a RoI family",
        lambda c: reads_rois(c) and fact(part(c, "head"), "reads") == "maps",
        "model/head",
        "a dense head reads maps, a RoI head vectors of pooled regions",
        "model/head=roi; the RPN's head is model/head@model.proposals.head=...",
    ),
    Rule(
        "unequal default boxes on a shared head",
        lambda c: unequal_boxes(c) and any_stage(c, "head", "one_for_all_levels"),
        "model/anchors",
        "four boxes a cell on some levels and six on others cannot come from one conv over all levels",
        "model/head=ssd (for an RPN: model/head@model.proposals.head=ssd), or model/anchors=ssd_formula",
    ),
    Rule(
        "default boxes of several levels on one map",
        lambda c: (
            bool(fact(part(c, "anchors"), "by_level")) and part(c, "anchors").get("scales") is not None and one_map(c)
        ),
        "model/anchors",
        "it has one scale per level, and a single map would keep the smallest boxes alone",
        "model/neck=ssd_extras, or model/anchors=rpn9, which puts all its sizes on one map",
    ),
    Rule(
        "proposal selection as the last step",
        lambda c: family(c, "class_agnostic") is False and fact(part(c, "detect"), "class_wise") is False,
        "model/detect",
        "it suppresses without classes, as an RPN does",
        "model/detect=retinanet, model/detect=roi or model/detect=ssd",
    ),
    Rule(
        "class-wise selection of proposals",
        lambda c: (
            (bool(family(c, "class_agnostic")) and bool(fact(part(c, "detect"), "class_wise")))
            or bool(fact(part(c, "proposals", "detect"), "class_wise"))
        ),
        "model/detect",
        "an RPN scores objects without classes and suppresses within levels",
        "model/detect=proposals",
    ),
    Rule(
        "the backbone's tail on a pyramid",
        lambda c: part(c, "head").get("body") == "tail" and not one_map(c),
        "model.head.body=tail (model/head=tail)",
        "conv5 (fc6 on VGG) reads one C4 map; a pyramid's maps have other channels and strides",
        "model/neck=none, or model/head=roi",
    ),
    Rule(
        "the backbone's tail on another map",
        lambda c: part(c, "head").get("body") == "tail" and one_map(c) and part(c, "neck").get("level", "C4") != "C4",
        "model.head.body=tail (model/head=tail)",
        "conv5 (fc6 on VGG) continues C4 and reads its channels",
        "model.neck.level=C4, or model/head=fc",
    ),
    Rule(
        "the backbone's tail on a vector",
        lambda c: part(c, "head").get("body") == "tail" and pools(c, "vectors"),
        "model/pool",
        "it gives a vector of bins from several grids, but conv5 and fc6 read one 14x14 or 7x7 map",
        "model/pool=roi_align, or model/head=fc",
    ),
    Rule(
        "convs on a vector",
        lambda c: bool(part(c, "head").get("convs")) and pools(c, "vectors"),
        "model/pool",
        "it gives a vector, but the head's 3x3 convs read a map",
        "model/pool=roi_align, or model/head=fc",
    ),
    Rule(
        "crops of the image as a pool of maps",
        lambda c: family(c, "reads") == "rois" and pools(c, "crops"),
        "model/pool",
        "it cuts RoIs from the image and sends each through the network, but this family makes maps once per image",
        "model=rcnn, or model/pool=roi_align",
    ),
    Rule(
        "a pool of maps on R-CNN",
        lambda c: family(c, "reads") == "crops" and not pools(c, "crops"),
        "model/pool",
        "R-CNN has no map of the whole image to pool from, only crops",
        "model/pool=warp, or model=fast_rcnn",
    ),
    Rule(
        "a pyramid of maps of one crop",
        lambda c: family(c, "reads") == "crops" and not one_map(c),
        "model/neck",
        "R-CNN's crop is one object at one size, described by one map; which level would it be read from?",
        "model/neck=none",
    ),
    Rule(
        "proposals that nobody reads",
        lambda c: family(c, "box_source") in ("anchors", "rpn") and (c.get("data") or {}).get("proposals") is not None,
        "data.proposals",
        "this family places its own boxes",
        "data.proposals=null, or model=fast_rcnn",
    ),
    Rule(
        "a pyramid with maps nobody reads",
        lambda c: (
            part(c, "neck").get("top_down") is False
            and (part(c, "neck").get("finest_only") or part(c, "neck").get("lateral") is False)
        ),
        "model.neck.top_down=false",
        "without the top-down path the coarser maps feed nothing (finest_only), or the finer get nothing (lateral)",
        "model.neck.top_down=true",
    ),
    *CELL_RULES,
    Rule(
        "alternating training of a family without an RPN and a RoI head",
        lambda c: fact(c.get("training"), "needs_box_source") not in (None, family(c, "box_source")),
        "training=alternating",
        "its four steps train an RPN and a detector on its proposals in turn",
        "model=faster_rcnn, or training=joint",
    ),
    Rule(
        "linear SVMs of a family without cached regions",
        lambda c: bool(fact(c.get("training"), "needs_linear_models")) and not family(c, "fits_linear_models"),
        "training=svm",
        "R-CNN and SPPnet fit them on features of fixed regions; in other families the features train on",
        "model=rcnn or model=sppnet, or training=joint",
    ),
    Rule(
        "stages without checkpoints",
        lambda c: (
            bool(fact(c.get("training"), "several"))
            and "callbacks" in c
            and not (c["callbacks"] or {}).get("checkpoint")
        ),
        "callbacks.checkpoint",
        "a stage starts from what the one before left behind",
        "callbacks=default, or training=joint",
    ),
    Rule(
        "compiled graphs of changing canvases",
        lambda c: bool(c.get("compile")) and "data" in c and family(c, "reads") != "crops" and not one_training_size(c),
        "compile=true",
        "each canvas size needs a graph of its own, and compiling one takes minutes",
        "data.canvas=[HEIGHT, WIDTH] with multiscale=null, or data.resize=warp",
    ),
    Rule(
        "monitored losses that are not computed",
        lambda c: c.get("evaluation_loss") is False and "loss" in str(c.get("monitor")),
        "evaluation_loss=false",
        "the monitored metric is a loss of the validation",
        "evaluation_loss=true, or monitor=null",
    ),
)


def check(config: Mapping[str, Any]) -> None:
    """Refuse a resolved config to which a rule applies.

    Raises:
        ConfigError: with the sentence of the first such rule.
    """
    for rule in RULES:
        if rule.applies(config):
            raise ConfigError(f"{rule.option} is refused ({rule.name}): {rule.reason}; use {rule.instead}.")


def as_markdown() -> str:
    """The table in Markdown, for docs/rules.md."""
    lines = ["| refused | option | reason | works |", "|---|---|---|---|"]
    lines += [f"| {r.name} | `{r.option}` | {r.reason} | {r.instead} |" for r in RULES]
    return "\n".join(lines) + "\n"
