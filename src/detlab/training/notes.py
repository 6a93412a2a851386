"""What a reader should know of a run before its first step, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention

from detlab.data import DetectionData
from detlab.detectors import Detector
from detlab.model.cell_criterion import CellCriterion
from detlab.model.criterion import Criterion
from detlab.training.lightning_module import DetectionModule

BY_IMAGE = "images"  # the normaliser under which a batch's loss is the mean of its images'


def plan_notes(
    config: Mapping[str, Any], trainer: L.Trainer, module: DetectionModule, data: DetectionData
) -> list[str]:
    """Notes on a run that is about to train."""
    return [*_cut_short(config, module, data), *_counted_by_step(trainer, module.detector, data)]


def _cut_short(config: Mapping[str, Any], module: DetectionModule, data: DetectionData) -> Iterator[str]:
    """Selections that keep fewer boxes than the metric looks at."""
    option, wanted, advice = _asked_for(config, module.detector, data)
    own = "post_nms_test" if module.detector.class_agnostic else "max_detections"
    selection = module.detector.selection
    kept = {} if selection is None else {f"model.detect.{own}": selection.max_detections}
    if module.tta is not None and module.tta.active and module.tta.max_detections is not None:
        kept["tta.max_detections"] = module.tta.max_detections
    for name, most in kept.items():
        if wanted > most:
            yield (
                f"{name}={most} keeps at most {most} boxes of an image, but {option} has metrics look at {wanted}, so "
                f"what they say of {wanted} is of {most}; use {name}={wanted}, or {advice} up to {most}."
            )


def _asked_for(config: Mapping[str, Any], detector: Detector, data: DetectionData) -> tuple[str, int, str]:
    """The option that says how many boxes of an image are judged, the most of them, and what else to set."""
    if not detector.class_agnostic:
        return f"data.max_detections={list(data.max_detections)}", max(data.max_detections), "data.max_detections"
    numbers = {
        f"metrics.proposals.{name}.max_detections": node["max_detections"]
        for name, node in config["metrics"]["proposals"].items()
        if node and node.get("max_detections")
    }
    option = max(numbers, key=lambda name: max(numbers[name]), default="")
    return (f"{option}={list(numbers[option])}", max(numbers[option]), option) if option else ("", 0, "")


def _counted_by_step(trainer: L.Trainer, detector: Detector, data: DetectionData) -> Iterator[str]:
    """Losses that accumulated steps divide by counts of their own."""
    steps = trainer.accumulate_grad_batches
    criteria = [m for m in detector.modules() if isinstance(m, Criterion | CellCriterion)]
    counts = sorted({m.normalizer for m in criteria} - {BY_IMAGE})
    if steps == 1 or not counts:
        return
    one = data.batch_size * trainer.world_size
    yield (
        f"trainer.accumulate_grad_batches={steps}: the learning rate follows all {one * steps} images, but losses are "
        f"divided by the counts (normalizer={', '.join(counts)}) of each step of {one}, so gradients differ from those "
        f"of one batch of {one * steps}, most where counts are least equal; docs/training.md says by how much, and "
        f"normalizer={BY_IMAGE} differs in nothing."
    )
