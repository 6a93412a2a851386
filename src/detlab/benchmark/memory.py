"""target=memory: peak memory of a training step, without weights, optimiser state and images."""

from __future__ import annotations

from typing import Any

from detlab.benchmark.measuring import machine, peak_bytes, set_up
from detlab.benchmark.pairs import make_images, make_pair
from detlab.benchmark.step import our_step, their_step


def run(
    *,
    model: str = "faster_rcnn_r50",
    precision: str = "fp32",
    their_precision: str | None = None,
    batch: int = 2,
    side: int = 320,
    boxes: int = 8,
    classes: int = 91,
    threads: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Ratio ours / theirs of one step each, after a first step that creates the optimiser's state."""
    where = set_up(threads, device)
    their_precision = their_precision or ("fp32" if where.type == "cpu" else precision)
    pair = make_pair(model, classes=classes, side=side, device=where)
    images = make_images(batch, side, boxes, classes, where)
    sides = {"ours": our_step(pair, images, precision), "theirs": their_step(pair, images, their_precision)}
    peaks = {}
    for name, call in sides.items():
        call()
        peaks[name] = peak_bytes(call, where)
    facts = {"model": model, "ours": precision, "theirs": their_precision, "batch": batch, "side": side, "boxes": boxes}
    facts |= {"classes": classes, **machine(where)}
    print("  ".join(f"{k} {v}" for k, v in facts.items()))
    for name, peak in peaks.items():
        print(f"{name:8} {peak / 2**20:9.1f} MB")
    return {**facts, "peak_bytes": peaks, "ratio": peaks["ours"] / peaks["theirs"]}
