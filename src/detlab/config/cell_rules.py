"""Rules for YOLO's parts: cells, objectness, layers for one fixed image size (see `detlab.config.rules`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detlab.config.facts import Rule, any_stage, fact, family, one_size, part, stages


def _other(config: Mapping[str, Any], criterion: Any) -> bool:
    """Whether only one of criterion and family works on cells."""
    asked, given = fact(criterion, "of_cells"), family(config, "gives_cells")
    return None not in (asked, given) and asked != given


CELL_RULES: tuple[Rule, ...] = (
    Rule(
        "cells of a family without cells",
        lambda c: (
            family(c, "gives_cells") is False
            and any(any_stage(c, name, "reads_cells") for name in ("coder", "matcher"))
        ),
        "model/matcher or model/coder",
        "it places a box in the cell that holds its centre, which this family does not hand to it",
        "model=yolo, or a matcher of overlaps such as model/matcher=retinanet with model/coder=unit",
    ),
    Rule(
        "the criterion of another kind of family",
        lambda c: (
            _other(c, part(c, "criterion"))
            or any(fact(part(c, stage, "criterion"), "of_cells") for stage in ("proposals", "arm"))
        ),
        "model/criterion",
        "YOLO's sums losses of objectness, classes and boxes, all others' those of classes and boxes",
        "model/criterion=positives, or with model=yolo model/criterion=yolo, yolov2 or yolov1",
    ),
    Rule(
        "boxes beyond the cell that predicts them",
        lambda c: bool(fact(part(c, "coder"), "reads_cells")) and not fact(part(c, "matcher"), "reads_cells"),
        "model/matcher",
        "it gives a box to anchors around its centre, but the coder cannot place a centre outside its own cell",
        "model/matcher=cell, or model/coder=unit",
    ),
    Rule(
        "logits of a place that has none",
        lambda c: any(
            fact(box, "needs_logits") and not fact(coder, "logits")
            for box, coder in zip(stages(c, "box_loss"), stages(c, "coder"), strict=True)
        ),
        "model/box_loss",
        "its cross entropy reads logits of shares of a cell, but the coder's offsets are unbounded",
        "model/box_loss=squared or any other, or model=yolo with model/coder=direct",
    ),
    Rule(
        "equal boxes that no prediction tells apart",
        lambda c: bool(fact(part(c, "anchors"), "twins")) and not fact(part(c, "matcher"), "reads_predictions"),
        "model/anchors",
        "all boxes of a cell are one, so a matcher that looks at shapes would train the first alone",
        "model/matcher=responsible with model=yolo, or model/anchors=yolo3",
    ),
    Rule(
        "classes that do not know background",
        lambda c: (
            family(c, "scores_objectness") is False
            and any(fact(node, "knows_background") is False for node in stages(c, "cls_loss"))
        ),
        "model/cls_loss",
        "it has no output and no loss for background, and this family has no objectness apart from its classes",
        "model/cls_loss=cross_entropy, or model=yolo",
    ),
    Rule(
        "a head without objectness on YOLO",
        lambda c: bool(family(c, "scores_objectness")) and not fact(part(c, "head"), "gives_objectness"),
        "model/head",
        "YOLO's loss and scores need an objectness of each anchor beside its classes",
        "model/head=yolo, yolov2, yolo_local or yolo_fc",
    ),
    Rule(
        "a head with objectness on another family",
        lambda c: family(c, "scores_objectness") is False and any_stage(c, "head", "gives_objectness"),
        "model/head",
        "this family has no loss for its objectness",
        "model/head=retinanet or model/head=ssd, or model=yolo",
    ),
    Rule(
        "images of several sizes on layers made for one",
        lambda c: bool(fact(part(c, "head"), "one_canvas")) and "data" in c and not one_size(c),
        "model/head",
        "its layers have weights for each place of a map, so every image must fill the same canvas",
        "data.resize=warp (or data.canvas) with tta=none and multiscale=null, or model/head=yolo",
    ),
)
