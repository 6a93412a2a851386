"""target=scaling: growth of a step's time and memory with batch, side, boxes per image and classes, one at a time."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from detlab.benchmark.measuring import interleave, machine, peak_bytes, set_up
from detlab.benchmark.options import OptionError
from detlab.benchmark.pairs import SSD_SIDE, make_images, make_pair
from detlab.benchmark.step import our_step, their_step

BASE = {"batch": 2, "side": 192, "boxes": 10, "classes": 80}
STEPS = {
    "batch": (1, 2, 4, 8),
    "side": (128, 192, 256, 384),
    "boxes": (1, 10, 100, 500),
    "classes": (3, 80, 1000),
}


def run(
    *,
    model: str = "retinanet_r18",
    precision: str = "fp32",
    factors: str = "batch,side,boxes,classes",
    batch: int = BASE["batch"],
    side: int = BASE["side"],
    boxes: int = BASE["boxes"],
    classes: int = BASE["classes"],
    threads: int | None = None,
    repeats: int = 3,
    clock: str = "wall",
    plot: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Print a table of both sides; `ratio` is the largest ratio ours / theirs in time or memory over all rows."""
    where = set_up(threads, device)
    base = {"batch": batch, "side": SSD_SIDE if model == "ssd300" else side, "boxes": boxes, "classes": classes}
    wanted = factors.split(",")
    if unknown := sorted(set(wanted) - set(STEPS)):
        raise OptionError(f"factors={unknown[0]} is not known; use some of {','.join(STEPS)}.")
    if model == "ssd300" and "side" in wanted:
        wanted.remove("side")
    facts = {"model": model, "precision": precision, **base, "repeats": repeats, "clock": clock, **machine(where)}
    print("  ".join(f"{k} {v}" for k, v in facts.items()))
    print("| factor | value | ours ms | theirs ms | ratio | ours MB | theirs MB | ratio |")
    print("|---" * 8 + "|")
    rows: list[dict[str, Any]] = []
    for factor in wanted:
        for value in STEPS[factor]:
            row = _measure(model, {**base, factor: value}, precision, repeats, clock, where)
            rows.append({"factor": factor, "value": value, **row})
            print(_line(rows[-1]), flush=True)
    if plot:
        draw(rows, Path(plot), f"{model}, {precision}, {facts['threads']} threads")
        print(f"plot {plot}")
    worst = max(max(r["ours_ms"] / r["theirs_ms"], r["ours_mb"] / r["theirs_mb"]) for r in rows)
    return {**facts, "rows": rows, "growth": growth(rows), "ratio": worst}


def growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """{factor: {"ms", "mb": growth over its range, ours / theirs}}; None if theirs does not grow."""
    found: dict[str, dict[str, float | None]] = {}
    for factor in dict.fromkeys(r["factor"] for r in rows):
        own = [r for r in rows if r["factor"] == factor]
        added = {k: own[-1][k] - own[0][k] for k in ("ours_ms", "theirs_ms", "ours_mb", "theirs_mb")}
        found[factor] = {
            unit: added[f"ours_{unit}"] / added[f"theirs_{unit}"] if added[f"theirs_{unit}"] else None
            for unit in ("ms", "mb")
        }
    return found


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Plot time and memory of both sides against each factor (needs matplotlib)."""
    from matplotlib.figure import Figure

    factors = list(dict.fromkeys(r["factor"] for r in rows))
    figure = Figure(figsize=(3 * len(factors), 5), layout="constrained")
    axes = figure.subplots(2, len(factors), squeeze=False)
    for column, factor in enumerate(factors):
        own = [r for r in rows if r["factor"] == factor]
        for row, unit in enumerate(("ms", "mb")):
            axis = axes[row][column]
            for name, style in (("ours", "o-"), ("theirs", "s--")):
                axis.plot([r["value"] for r in own], [r[f"{name}_{unit}"] for r in own], style, label=name)
            top = 1.1 * max(max(r[f"ours_{unit}"], r[f"theirs_{unit}"]) for r in own)
            axis.set(xlabel=factor, ylabel={"ms": "ms a step", "mb": "MB at the peak"}[unit], ylim=(0, top))
    axes[0][0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _measure(
    model: str, size: dict[str, int], precision: str, repeats: int, clock: str, device: torch.device
) -> dict[str, float]:
    pair = make_pair(model, classes=size["classes"], side=size["side"], device=device)
    images = make_images(size["batch"], size["side"], size["boxes"], size["classes"], device)
    sides = {"ours": our_step(pair, images, precision), "theirs": their_step(pair, images, precision)}
    times = interleave(sides, repeats=repeats, warm_up=1, device=device, clock=clock)
    row = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()}
    return row | {f"{name}_mb": peak_bytes(call, device) / 2**20 for name, call in sides.items()}


def _line(r: dict[str, Any]) -> str:
    return (
        f"| {r['factor']} | {r['value']} | {r['ours_ms']:.0f} | {r['theirs_ms']:.0f} | "
        f"{r['ours_ms'] / r['theirs_ms']:.2f} | {r['ours_mb']:.0f} | {r['theirs_mb']:.0f} | "
        f"{r['ours_mb'] / r['theirs_mb']:.2f} |"
    )
