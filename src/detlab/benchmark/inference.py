"""target=inference: time of detection: normalisation, network, selection, boxes in pixels of the original image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detlab.benchmark.measuring import interleave, machine, print_shares, print_times, ratio, set_up, shares, summarise
from detlab.benchmark.pairs import Pair, as_lists, copy_weights, make_images, make_pair, set_selection, spread_scores
from detlab.benchmark.step import format_of
from detlab.detectors.runtimes import TORCH, Detects, InRuntime, check_runtime
from detlab.model.detect import to_original
from detlab.tensors.norms import cast_weights, fold_norms
from detlab.tensors.structures import Batch, Detections

TOLERANCE = 1e-4  # largest difference of scores, and of coordinates as a share of the canvas size


def run(
    *,
    model: str = "faster_rcnn_r50",
    runtime: str = TORCH,
    precision: str = "fp32",
    their_precision: str | None = None,
    batch: int = 1,
    side: int = 384,
    classes: int = 91,
    score_threshold: float = 0.05,
    threads: int | None = None,
    repeats: int = 9,
    warm_up: int = 2,
    clock: str = "wall",
    profile: bool = True,
    device: str = "auto",
) -> dict[str, Any]:
    """Time ratio, and whether both detect the same (384 px, since torchvision's RetinaNet needs multiples of 128).

    `runtime` and `precision` are ours; theirs runs in torch.
    """
    where = set_up(threads, "cpu" if runtime != TORCH and device == "auto" else device)
    check_runtime(runtime, where, precision)
    their_precision = their_precision or ("fp32" if where.type == "cpu" else precision)
    pair = make_pair(model, classes=classes, side=side, device=where)
    spread_scores(pair.theirs)
    pair = copy_weights(pair, model, classes)
    set_selection(pair, {"score_threshold": score_threshold})
    fold_norms(pair.ours)  # as `detlab predict` does
    pair.theirs.eval()
    images = make_images(batch, side, 1, classes, where)
    detects = pair.ours if runtime == TORCH else InRuntime(pair.ours, runtime)
    agree = agreement(pair, images, detects)
    if precision == "bf16":
        cast_weights(pair.ours, format_of(precision))  # as `detlab predict` does
    listed = as_lists(images, pair.shift)[0]

    @torch.inference_mode()
    def ours() -> None:
        with torch.autocast(where.type, format_of(precision), enabled=precision != "fp32"):
            to_original(detects.detect(images), images)

    @torch.inference_mode()
    def theirs() -> None:
        with torch.autocast(where.type, format_of(their_precision), enabled=their_precision != "fp32"):
            pair.theirs(listed)

    sides = {"ours": ours, "theirs": theirs}
    times = interleave(sides, repeats=repeats, warm_up=warm_up, device=where, clock=clock)
    facts = {"model": model, "runtime": runtime, "ours": precision, "theirs": their_precision, "batch": batch}
    facts |= {"side": side, "classes": classes, "repeats": repeats, "clock": clock, **machine(where)}
    result: dict[str, Any] = {**facts, "times": summarise(times), "agreement": agree}
    print_times(facts, result["times"])
    print(f"in fp32 both detect {agree['found']} boxes; equal: {agree['equal']}")
    result["ratio"], low, high = ratio(times)
    result["ratio_range"] = [low, high]
    if profile:
        seen = sides if runtime == TORCH else {"theirs": theirs}  # torch's profiler sees torch's operations only
        result["profile"] = {name: shares(call, where) for name, call in seen.items()}
        for name, found in result["profile"].items():
            print_shares(name, found)
    return result


@torch.inference_mode()
def agreement(pair: Pair, batch: Batch, detects: Detects | None = None) -> dict[str, Any]:
    """Number of boxes that detlab finds in fp32, and whether torchvision finds the same boxes.

    Args:
        detects: our side, None for the pair's own.
    """
    found = to_original((detects or pair.ours).detect(batch), batch)
    expected = pair.theirs(as_lists(batch, pair.shift)[0])
    return {"found": int(found.real.sum()), "equal": same_detections(found, expected, pair.shift, batch.canvas[0])}


def same_detections(found: Detections, expected: list[dict[str, Tensor]], shift: int, side: int) -> bool:
    """Whether both are equal sets of (box, score, label); rows of equal score may be in a different order."""
    for i, want in enumerate(expected):
        real = found.real[i]
        scores, labels = found.scores[i][real], found.labels[i][real] + shift
        if len(scores) != len(want["scores"]) or not torch.allclose(scores, want["scores"], atol=TOLERANCE, rtol=0):
            return False
        cost = torch.cdist(found.boxes[i][real], want["boxes"], p=1) + side * (labels[:, None] != want["labels"])
        limit = 4 * side * TOLERANCE
        if len(scores) and max(cost.amin(1).max(), cost.amin(0).max()) > limit:
            return False
    return True
