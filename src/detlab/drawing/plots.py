"""Figures of an error report and of anchor coverage, drawn from plain numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from detlab.drawing.pictures import ERROR_COLOURS, LONGEST_NAME, PALETTE
from detlab.system.text import shortened

MOST_CLASSES = 10  # most lines in a panel, and most classes with which a confusion matrix shows its counts
GREY = "#7F7F7F"
LONGEST_TITLE, LONGEST_ROW = 120, 60  # characters above and beside intervals
VERDICT_COLOURS = {"better": PALETTE[4], "worse": PALETTE[5]}


def error_figures(report: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures of `detlab.metrics.breakdown.error_report` by name."""
    figures = {
        "errors": error_shares(report),
        "pr_curves": pr_curves(report["pr_curves"]),
        "confusion": confusion(report["confusion"]),
        "scores": score_histograms(report["scores"]),
        "recall_by_size": recall_bars(report["recall_by_size"], "square root of the box's area, px"),
    }
    if "recall_by_anchor_iou" in report:
        figures["recall_by_anchor_iou"] = recall_bars(report["recall_by_anchor_iou"], "IoU with the best anchor")
    if "stages" in report:
        figures["stages"] = stages(report["stages"])
    return figures


def pixels(figure: Figure) -> np.ndarray:
    """A figure as uint8 RGB [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, file: Path) -> np.ndarray:
    """Write a figure as a PNG; returns its pixels, uint8 RGB [H, W, 3]. `savefig` would draw it twice more."""
    drawn = pixels(figure)
    Image.fromarray(drawn).save(file)
    return drawn


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels(figure)).save(content, "PNG", optimize=True)
    return content.getvalue()


def error_shares(report: Mapping[str, Any]) -> Figure:
    """Bars of the AP at 0.5 regained by fixing each kind of error, with the numbers of errors."""
    kinds, special = report["kinds"], report["special"]
    names = [*kinds, *special]
    rows = [*kinds.values(), *special.values()]
    figure, axes = _figure(6.4, 3.4)
    values = [row["ap_regained"] for row in rows]
    colours = [ERROR_COLOURS.get(name, GREY) for name in names]
    axes.barh(range(len(names)), values, color=colours)
    axes.axhline(len(kinds) - 0.5, color="black", linewidth=0.8)
    for y, row in enumerate(rows):
        axes.text(row["ap_regained"], y, f"  {row['ap_regained']:.3f}  ({row['count']})", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, max(*values, 0.01) * 1.35)
    axes.set_xlabel(f"AP at IoU 0.5 regained when fixed (number of errors); AP now {report['ap_50']:.3f}")
    return figure


def pr_curves(curves: Mapping[str, Any], thresholds: Sequence[float] = (0.5, 0.75, 0.9)) -> Figure:
    """Precision over recall for each class and the mean over classes, in one panel per IoU threshold."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    recall = np.linspace(0, 1, 101)
    tables = {name: np.asarray(table) for name, table in curves["precision"].items()}
    shown = list(tables)[:MOST_CLASSES]
    for i, threshold in enumerate(thresholds):
        axes = figure.add_subplot(1, len(thresholds), i + 1)
        row = curves["iou"].index(threshold)
        for n, name in enumerate(shown):
            colour, style = PALETTE[n % len(PALETTE)], "-" if n < len(PALETTE) else "--"
            label = f"{name} {tables[name][row].mean():.2f}"
            axes.plot(recall, tables[name][row], label=label, color=colour, linestyle=style)
        if len(tables) > 1:
            mean = np.mean([table[row] for table in tables.values()], axis=0)
            axes.plot(recall, mean, color="black", linewidth=2, label=f"mean {mean.mean():.2f}")
        axes.set(title=f"IoU {threshold}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
        if tables:
            axes.legend(fontsize=7)
        if i == 0:
            axes.set_ylabel("precision")
    return figure


def confusion(matrix: Mapping[str, Any]) -> Figure:
    """Confusion matrix: share of each true class (row) by predicted class, with the counts where there is room."""
    counts, names = np.asarray(matrix["counts"]), [shortened(name, LONGEST_NAME) for name in matrix["classes"]]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.75 * len(names) + 1.5, 3.6, 12))
    figure, axes = _figure(side + 0.6, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MOST_CLASSES + 1:
        for (y, x), count in np.ndenumerate(counts):
            axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=_ink(shares[y, x]))
    size = 8 if len(names) <= 30 else 5
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 5 else 30, fontsize=size)
    axes.set_yticks(range(len(names)), [*names[:-1], "(false)"], fontsize=size)
    axes.set_xticklabels([*names[:-1], "(not found)"])
    axes.set(xlabel="predicted", ylabel="true", title=f"scores from {matrix['score_threshold']:.2f}, IoU from 0.5")
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    return figure


def score_histograms(histograms: Mapping[str, Any]) -> Figure:
    """Stacked histogram of detections by score: true positives at the bottom, false ones above, by kind."""
    edges = np.asarray(histograms["edges"])
    figure, axes = _figure(6.4, 3.2)
    bottom = np.zeros(len(edges) - 1)
    for name, counts in histograms["counts"].items():
        heights = np.asarray(counts, float)
        axes.bar(edges[:-1], heights, np.diff(edges), bottom, align="edge", label=name, color=ERROR_COLOURS[name])
        bottom += heights
    axes.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    if bottom.max() > 20 * max(1.0, np.median(bottom)):
        axes.set_yscale("symlog", linthresh=10)
    axes.legend(fontsize=8)
    return figure


def recall_bars(rows: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """Recall at IoU 0.5 and averaged over .50:.95 for groups of boxes, with the number of boxes in each."""
    figure, axes = _figure(6.4, 3.0)
    x = np.arange(len(rows))
    axes.bar(x - 0.2, [r["recall_50"] for r in rows], 0.4, color=PALETTE[1], label="IoU 0.5")
    axes.bar(x + 0.2, [r["recall"] for r in rows], 0.4, color=PALETTE[4], label="IoU .50:.95")
    ends = [f"{r['from']:g}-{r['to']:g}" if r["to"] is not None else f"{r['from']:g}-" for r in rows]
    axes.set_xticks(x, [f"{end}\n{r['boxes']} boxes" for end, r in zip(ends, rows, strict=True)], fontsize=7)
    axes.set(xlabel=label, ylabel="recall", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower right")
    return figure


def stages(report: Mapping[str, Any]) -> Figure:
    """Shares of boxes lost at each stage, and recall over the number of boxes per image."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    shares = report["boxes"]
    for x, share in enumerate(shares.values()):
        left.bar(x, share, color=PALETTE[(2, 0, 5)[x]])
        left.text(x, share, f"{share:.3f}", ha="center", va="bottom", fontsize=8)
    left.set_xticks(range(len(shares)), [name.replace(", ", ",\n") for name in shares], fontsize=8)
    left.set(ylabel="share of boxes, IoU 0.5", ylim=(0, 1.08))
    for name, colour in (("proposals", PALETTE[1]), ("final", PALETTE[5])):
        points = sorted((int(k[3:]), v) for k, v in report[name].items() if k.startswith("ar_") and k[3:].isdigit())
        right.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
    right.set(xscale="log", xlabel="boxes per image", ylabel="average recall", ylim=(0, 1))
    right.legend(fontsize=8)
    return figure


def anchor_coverage(report: Mapping[str, Any], sides: np.ndarray, shapes: np.ndarray) -> Figure:
    """Best IoU of the boxes, coverage by size, and widths and heights of boxes [n, 2] and anchors [k, 2].

    Args:
        report: of `detlab.metrics.anchor_coverage.coverage_report`.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = (figure.add_subplot(1, 3, i) for i in (1, 2, 3))
    edges = np.asarray(report["best_iou"]["edges"])
    left.bar(edges[:-1], report["best_iou"]["boxes"], np.diff(edges), align="edge", color=PALETTE[1])
    for threshold in report["thresholds"]:
        left.axvline(threshold, color=PALETTE[5], linestyle="--")
    left.set(xlabel="IoU with the best anchor", ylabel="boxes", xlim=(0, 1))
    rows, high = report["by_size"], max(report["thresholds"])
    x = np.arange(len(rows))
    middle.bar(x - 0.2, [r["iou"] for r in rows], 0.4, color=PALETTE[1], label="mean best IoU")
    middle.bar(x + 0.2, [r[f"recall_{high:g}"] for r in rows], 0.4, color=PALETTE[4], label=f"IoU from {high:g}")
    names = [f"{r['from']:g}-{r['to'] or ''}\n{r['boxes']}" for r in rows]
    middle.set_xticks(x, names, fontsize=7)
    middle.set(xlabel="square root of the area, px; boxes", ylim=(0, 1.02))
    middle.legend(fontsize=7, loc="lower right")
    some = sides[:: max(1, len(sides) // 3000)]
    right.scatter(some[:, 0], some[:, 1], s=3, color=PALETTE[1], label="boxes", alpha=0.5)
    widths, heights = shapes[:, 0], shapes[:, 1]
    right.scatter(widths, heights, s=30, marker="s", facecolors="none", edgecolors=PALETTE[5], label="anchors")
    right.set(xscale="log", yscale="log", xlabel="width, px", ylabel="height, px")
    right.legend(fontsize=7, loc="upper left")
    return figure


def differences(groups: Mapping[str, Sequence[tuple[str, float, float, float, str]]]) -> Figure:
    """Differences with their intervals: under each title (row, difference, low end, high end, verdict)."""
    count = sum(len(rows) + 1 for rows in groups.values())
    figure, axes = _figure(9, 0.8 + 0.17 * count)
    names, y = [], 0
    for title, rows in groups.items():
        shown = shortened(title, LONGEST_TITLE)
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        place = axes.get_yaxis_transform()
        axes.text(0.003, y, shown, transform=place, fontsize=6.5, fontweight="bold", va="center", bbox=clear)
        names.append("")
        for name, value, low, high, verdict in rows:
            y += 1
            colour = VERDICT_COLOURS.get(verdict, GREY)
            axes.plot([low, high], [y, y], color=colour, linewidth=1.5)
            axes.plot(value, y, "o", color=colour, markersize=3)
            names.append(shortened(name, LONGEST_ROW))
        y += 1
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.set_yticks(range(count), names, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(count - 0.4, -0.9)
    axes.set_xlabel(
        "difference to the first row, 95 % interval (blue: better, orange: worse, grey: not distinguishable)"
    )
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _ink(share: float) -> str:
    return "white" if share > 0.5 else "black"
