"""Anchor shapes fitted to a data set's boxes: k-means with 1 - IoU as distance (YOLO9000, section 2).

A detector's shapes are the products of a few sizes, octaves and ratios, so the cluster centres stay on that grid: every
box is assigned to the shape of highest IoU, then each size and each ratio becomes the geometric mean over its boxes.
The start is quantiles of the boxes, so the result is the same every time.
"""

# Names: the extent of a box is the log of the square root of its area, its slant the log of height / width.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROUNDS = 50  # at most; k-means stops when the mean IoU no longer grows


class Fit(NamedTuple):
    """Fitted shapes."""

    sizes: list[float]  # px, ascending: square root of the area
    ratios: list[float]  # height / width, ascending
    iou: float  # mean over boxes of the IoU with the best shape, both centred on one point


def fit_shapes(sides: np.ndarray, sizes: int, ratios: int, octaves: Sequence[float] = (1.0,)) -> Fit:
    """The sizes and ratios whose shapes overlap boxes best.

    Args:
        sides: [n, 2] widths and heights, px.
        sizes, ratios: numbers of sizes and of ratios.
        octaves: factors of every size, not fitted.
    """
    extent, slant = np.log(sides.prod(1)) / 2, np.log(sides[:, 1] / sides[:, 0])
    octave = np.log(np.asarray(octaves))
    size = np.quantile(extent, (np.arange(sizes) + 0.5) / sizes) - octave.mean()
    ratio = np.quantile(slant, (np.arange(ratios) + 0.5) / ratios)
    best = Fit([], [], -1.0)
    for _ in range(ROUNDS):
        shapes = (size[:, None, None] + octave[:, None]).reshape(-1, 1), ratio[None]
        w, h = np.exp(shapes[0] - shapes[1] / 2).ravel(), np.exp(shapes[0] + shapes[1] / 2).ravel()
        overlap = shape_iou(sides, np.column_stack([w, h]))
        nearest = overlap.argmax(axis=1)
        mean = float(overlap.max(axis=1).mean())
        if mean <= best.iou + 1e-6:
            break
        best = Fit(sorted(np.exp(size).tolist()), sorted(np.exp(ratio).tolist()), mean)
        of_size, rest = np.divmod(nearest, len(octave) * ratios)
        of_octave, of_ratio = np.divmod(rest, ratios)
        size = _means(extent - octave[of_octave], of_size, size)
        ratio = _means(slant, of_ratio, ratio)
    return best


def fit_pairs(sides: np.ndarray, count: int) -> tuple[list[tuple[float, float]], float]:
    """Free shapes by k-means with 1 - IoU (YOLO9000 section 2): each becomes the mean of the boxes nearest to it.

    The start is the boxes at even quantiles of the area, so the result is the same every time.

    Args:
        sides: [n, 2] widths and heights, px.
        count: number of shapes.

    Returns:
        (width, height) of each, by ascending area, and the mean IoU of boxes with their shape.
    """
    order = np.argsort(sides.prod(1), kind="stable")
    shapes = sides[order[((np.arange(count) + 0.5) / count * len(sides)).astype(int)]].astype(float)
    best, found = -1.0, shapes
    for _ in range(ROUNDS):
        overlap = shape_iou(sides, shapes)
        nearest, mean = overlap.argmax(axis=1), float(overlap.max(axis=1).mean())
        if mean <= best + 1e-6:
            break
        best, found = mean, shapes
        shapes = np.column_stack([_means(sides[:, i], nearest, shapes[:, i]) for i in (0, 1)])
    return [(float(w), float(h)) for w, h in found[np.argsort(found.prod(1), kind="stable")]], best


def shape_iou(sides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU [n, k] of boxes [n, 2] (width, height) and shapes [k, 2], all centred on one point."""
    inter = np.minimum(sides[:, None], shapes[None]).prod(axis=2)
    return inter / (sides.prod(1)[:, None] + shapes.prod(1)[None] - inter)


def _means(values: np.ndarray, group: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Mean of each group's values; the old value for an empty group."""
    counts = np.bincount(group, minlength=len(old))
    sums = np.bincount(group, values, minlength=len(old))
    return np.where(counts > 0, sums / np.maximum(counts, 1), old)
