"""target=step: time of a training step: forward, loss, backward, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from detlab.benchmark.measuring import (
    interleave,
    machine,
    print_shares,
    print_times,
    ratio,
    set_up,
    shares,
    summarise,
    synchronisations,
)
from detlab.benchmark.options import OptionError
from detlab.benchmark.pairs import Pair, as_lists, make_images, make_pair
from detlab.detectors.compiling import Compiled, graphs
from detlab.tensors.structures import Batch

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(
    *,
    model: str = "faster_rcnn_r50",
    precision: str = "fp32",
    their_precision: str | None = None,
    batch: int = 2,
    side: int = 320,
    boxes: int = 8,
    classes: int = 91,
    norm: str = "bn",
    compile: bool = False,
    threads: int | None = None,
    repeats: int = 5,
    warm_up: int = 1,
    clock: str = "wall",
    profile: bool = True,
    device: str = "auto",
) -> dict[str, Any]:
    """Time ratio of ours at `precision` to theirs at `their_precision` (null: fp32 on a CPU, `precision` on a GPU)."""
    where = set_up(threads, device)
    their_precision = their_precision or ("fp32" if where.type == "cpu" else precision)
    pair = make_pair(model, classes=classes, side=side, device=where, norm=norm)
    images = make_images(batch, side, boxes, classes, where)
    sides = {"ours": our_step(pair, images, precision, compile), "theirs": their_step(pair, images, their_precision)}
    times = interleave(sides, repeats=repeats, warm_up=warm_up, device=where, clock=clock)
    facts = {"model": model, "ours": precision, "theirs": their_precision, "batch": batch, "side": side, "boxes": boxes}
    facts |= {"classes": classes, "norm": norm, "compile": compile, "repeats": repeats, "clock": clock}
    facts |= machine(where)
    result: dict[str, Any] = {**facts, "times": summarise(times)}
    print_times(facts, result["times"])
    result["ratio"], low, high = ratio(times)
    result["ratio_range"] = [low, high]
    print(f"ratio of neighbouring steps {low:.3f} to {high:.3f}")
    if profile:
        result["profile"] = {name: shares(call, where) for name, call in sides.items()}
        for name, found in result["profile"].items():
            print_shares(name, found)
    if where.type == "cuda":
        result["synchronisations"] = {name: synchronisations(call) for name, call in sides.items()}
        print("synchronisations  " + "  ".join(f"{k} {v}" for k, v in result["synchronisations"].items()))
    if compile:
        result["graphs"] = graphs()
        print(f"graphs compiled {result['graphs']}")
    return result


def our_step(pair: Pair, batch: Batch, precision: str, compile: bool = False) -> Callable[[], None]:
    """A training step of detlab as in `detlab train`: fused SGD, autocast unless in fp32."""
    detector = pair.ours.train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4, fused=True)
    loss = Compiled(detector).loss if compile else detector.loss
    device = batch.images.device.type
    dtype = format_of(precision)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            total = torch.stack(list(loss(batch).values())).sum()
        total.backward()
        optimizer.step()

    return step


def their_step(pair: Pair, batch: Batch, precision: str) -> Callable[[], None]:
    """A training step of torchvision as in its reference script: SGD, images in a list."""
    model = pair.theirs.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    images, targets = as_lists(batch, pair.shift)
    device = batch.images.device.type
    dtype = format_of(precision)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            total = sum(model(images, targets).values())
        total.backward()
        optimizer.step()

    return step


def format_of(precision: str) -> torch.dtype:
    """The dtype of a precision's name."""
    if precision not in FORMATS:
        raise OptionError(f"precision={precision} is not known; use one of {', '.join(FORMATS)}.")
    return FORMATS[precision]
