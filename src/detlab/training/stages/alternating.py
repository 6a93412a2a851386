"""Faster R-CNN's 4-step alternating training (Faster R-CNN section 3.2; py-faster-rcnn's train_faster_rcnn_alt_opt.py).

    1-rpn       an RPN, from the backbone's weights
    2-detector  Fast R-CNN on its proposals, from the same initial weights; no layers are shared yet
    3-rpn       an RPN on stage 2's backbone and neck, which are frozen
    4-detector  Fast R-CNN on stage 3's proposals; backbone and neck stay frozen, the head continues from stage 2

The result has the backbone and neck of stage 2, the RPN of stage 3 and the head of stage 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from detlab.data.proposals.store import proposal_file, write_proposals
from detlab.detectors import Detector, RPNDetector
from detlab.model.detect import to_original
from detlab.runs.checkpoints import Checkpoint
from detlab.tensors.structures import Batch, Detections
from detlab.training.feature_cache import Arrays, ImageCache
from detlab.training.stages.stage import HandOver, Length, LengthOptions, Stages, fill_cache, unaugmented

SHARED = ("backbone.", "neck.")
NAMES = ("rpn", "detector", "rpn", "detector")


class StageLengths(TypedDict):
    """Lengths of the four stages."""

    rpn_1: LengthOptions
    detector_1: LengthOptions
    rpn_2: LengthOptions
    detector_2: LengthOptions


class Alternating:
    """Trains a Faster R-CNN in four stages.

    Args:
        stages: {rpn_1, detector_1, rpn_2, detector_2: {max_epochs, lr}}; null for the run's own value.
        hand_over: "best" or "last", the checkpoint of a stage that the next ones use.
    """

    several = True  # several stages, each starting from the results of the previous one
    needs_box_source = "rpn"

    def __init__(self, *, stages: StageLengths, hand_over: HandOver = "best") -> None:
        self.lengths = [Length(**stages[key]) for key in ("rpn_1", "detector_1", "rpn_2", "detector_2")]
        self.hand_over = hand_over

    def __call__(self, config: dict[str, Any]) -> float | None:
        """Train the unfinished stages and test the result; returns the monitored metric's best value in stage 4."""
        models = (rpn_of(config["model"]), fast_of(config["model"]))
        stages = Stages(config, NAMES, self.hand_over, models, self.lengths)
        stages.do(1, lambda: self._rpn(stages, 1), "RPN, from the initial weights")
        stages.do(
            2, lambda: self._detector(stages, 2), "detector on the proposals of stage 1, from the initial weights"
        )
        stages.do(3, lambda: self._rpn(stages, 3), "RPN on backbone and neck of stage 2, which are frozen")
        stages.do(4, lambda: self._detector(stages, 4), "head of stage 2 on the proposals of stage 3, the rest frozen")
        states = {name: joined(stages.checkpoint(3), stages.checkpoint(4, name)) for name in ("best", "last")}
        return stages.finish(config, states, stages.score(4))

    def _rpn(self, stages: Stages, number: int) -> float | None:
        changes: dict[str, Any] = {"model": rpn_of(stages.config["model"]), "monitor": None}
        if number == 1:
            return stages.train(1, self.lengths[0], **changes)
        return stages.train(3, self.lengths[2], Shared(stages.checkpoint(2)), init_from=None, **changes)

    def _detector(self, stages: Stages, number: int) -> float | None:
        data = stages.config["data"] | {"proposals": str(propose(stages, number - 1)), "proposal_count": None}
        changes: dict[str, Any] = {"model": fast_of(stages.config["model"]), "data": data}
        if number == 2:
            return stages.train(2, self.lengths[1], **changes)
        return stages.train(4, self.lengths[3], Shared(stages.checkpoint(2), head=True), init_from=None, **changes)


class Shared:
    """Copies backbone and neck of a checkpoint into a detector and freezes them.

    Layers that the checkpoint lacks, such as the conv for P6, stay trainable.

    Args:
        checkpoint: source of the weights.
        head: also copy the other layers, which stay trainable.
    """

    def __init__(self, checkpoint: Checkpoint, head: bool = False) -> None:
        self.checkpoint, self.head = checkpoint, head

    def __call__(self, detector: Detector) -> None:
        """Copy and freeze the weights in place."""
        shared = {name: value for name, value in self.checkpoint.state.items() if name.startswith(SHARED)}
        detector.load_state_dict(self.checkpoint.state if self.head else shared, strict=self.head)
        detector.freeze(shared)


def rpn_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a Faster R-CNN's RPN alone."""
    parts = {key: value for key, value in model["proposals"].items() if not key.startswith("_")}
    shared = {key: model[key] for key in ("backbone", "neck", "anchors")}
    return {"_target_": "detlab.detectors.RPNDetector", **shared, **parts}


def fast_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a Faster R-CNN without its RPN: a Fast R-CNN."""
    parts = {key: value for key, value in model.items() if key not in ("anchors", "proposals")}
    return parts | {"_target_": "detlab.detectors.FastRCNN"}


def joined(rpn: Checkpoint, detector: Checkpoint) -> dict[str, Tensor]:
    """The state dict of a Faster R-CNN, joined from its RPN (stage 3) and its Fast R-CNN (stage 4).

    Raises:
        RuntimeError: shared tensors are not bit-identical, so the checkpoints are not from one run.
    """
    both = rpn.state.keys() & detector.state.keys()
    moved = sorted(name for name in both if not torch.equal(rpn.state[name], detector.state[name]))
    if moved:
        raise RuntimeError(f"{rpn.path} and {detector.path} share no layers: {moved[0]} differs; train both again.")
    return rpn.state | detector.state


def propose(stages: Stages, number: int) -> Path:
    """Write an RPN stage's proposals for all splits, if missing; returns their folder."""
    folder = stages.folder(number) / "proposals"
    config = stages.config_of(number) | {"model": rpn_of(stages.config["model"])}
    for split in ("train", "val", "test"):
        cache = ImageCache(folder / split, ("scores", "boxes"))
        if (folder / f"{split}.npz").is_file():
            if cache.folder.is_dir():  # of a process that was killed between the two
                cache.remove()
            continue
        data = unaugmented(config, split)
        if split == "test" and not data.has("test"):
            continue
        describe = partial(propose_batch, for_training=split == "train")
        fill_cache(config, stages.checkpoint(number), data, split, cache, describe)
        records = data.records("val" if split == "val" else "test")
        found = [(a["boxes"], a["scores"]) for a in (cache.read(item.id) for item in records)]
        write_proposals(folder / f"{split}.npz", proposal_file("rpn", records, found))
        cache.remove()
    return folder


def propose_batch(detector: Detector, batch: Batch, *, for_training: bool) -> list[Arrays]:
    """boxes [n, 4] float32 (px of the image as stored) and scores [n] of each image's proposals."""
    assert isinstance(detector, RPNDetector)  # of `rpn_of`
    boxes, scores = detector.rpn.propose(detector.rpn(detector.features(batch)), batch, for_training=for_training)
    stored = to_original(Detections(boxes, scores, torch.zeros_like(scores).long()), batch).boxes
    keep = (scores >= 0) & (stored[..., 2:] > stored[..., :2]).all(dim=-1)
    return [
        {"boxes": b[k].float().cpu().numpy(), "scores": s[k].float().cpu().numpy()}
        for b, s, k in zip(stored, scores, keep, strict=True)
    ]
