"""What darknet's loss layers write into their deltas, as plain loops over cells, anchors and boxes; no torch.

After forward_detection_layer (YOLOv1), forward_region_layer (YOLOv2) and forward_yolo_layer (YOLOv3). A delta is the
negative gradient by the network's output, summed over the batch; coordinates are shares of the canvas, boxes (centre x,
centre y, w, h). Outputs come as rows [image][row][column][anchor] of x, y, w, h, objectness, classes.
"""

from __future__ import annotations

import math

import numpy as np

Box = tuple[float, float, float, float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def iou(a: Box, b: Box) -> float:
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    inter = w * h if w > 0 and h > 0 else 0.0
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def region_box(out: np.ndarray, i: int, j: int, w: int, h: int, anchor: tuple[float, float]) -> Box:
    """anchor: sides as shares of the canvas."""
    x, y = (i + sigmoid(out[0])) / w, (j + sigmoid(out[1])) / h
    return x, y, math.exp(out[2]) * anchor[0], math.exp(out[3]) * anchor[1]


def box_delta(
    truth: Box, out: np.ndarray, i: int, j: int, w: int, h: int, anchor: tuple[float, float], scale: float
) -> list[float]:
    wanted = (truth[0] * w - i, truth[1] * h - j, math.log(truth[2] / anchor[0]), math.log(truth[3] / anchor[1]))
    found = (sigmoid(out[0]), sigmoid(out[1]), out[2], out[3])
    return [scale * (t - o) for t, o in zip(wanted, found, strict=True)]


def best_shape(truth: Box, anchors: list[tuple[float, float]]) -> int:
    overlaps = [iou((0, 0, truth[2], truth[3]), (0, 0, *anchor)) for anchor in anchors]
    return overlaps.index(max(overlaps))


def yolo_deltas(
    levels: list[np.ndarray],
    anchors: list[tuple[float, float]],
    truths: list[list[tuple[Box, int]]],
    ignore: float,
) -> list[np.ndarray]:
    """YOLOv3: levels [B, h, w, 3, 5 + K] finest first, nine anchors in shares of the canvas."""
    per = len(anchors) // len(levels)
    deltas = [np.zeros_like(out) for out in levels]
    for level, (out, delta) in enumerate(zip(levels, deltas, strict=True)):
        count, h, w = out.shape[:3]
        for b in range(count):
            for j in range(h):
                for i in range(w):
                    for n in range(per):
                        o = out[b, j, i, n]
                        predicted = region_box(o, i, j, w, h, anchors[level * per + n])
                        best = max((iou(predicted, t) for t, _ in truths[b]), default=0.0)
                        delta[b, j, i, n, 4] = 0 if best > ignore else 0 - sigmoid(o[4])
            for truth, label in truths[b]:
                chosen = best_shape(truth, anchors)
                if chosen // per != level:
                    continue
                n, i, j = chosen % per, int(truth[0] * w), int(truth[1] * h)
                o, d = out[b, j, i, n], delta[b, j, i, n]
                d[:4] = box_delta(truth, o, i, j, w, h, anchors[chosen], 2 - truth[2] * truth[3])
                d[4] = 1 - sigmoid(o[4])
                if d[5] != 0:  # another box has been here: its class stays
                    d[5 + label] = 1 - sigmoid(o[5 + label])
                else:
                    for c in range(len(o) - 5):
                        d[5 + c] = (c == label) - sigmoid(o[5 + c])
    return deltas


def region_deltas(
    out: np.ndarray,
    anchors: list[tuple[float, float]],
    truths: list[list[tuple[Box, int]]],
    *,
    thresh: float = 0.6,
    object_scale: float = 5,
    warm: bool = False,
) -> np.ndarray:
    """YOLOv2: out [B, h, w, 5, 5 + K]; warm: fewer than 12,800 images seen."""
    count, h, w = out.shape[:3]
    delta = np.zeros_like(out)
    for b in range(count):
        for j in range(h):
            for i in range(w):
                for n, anchor in enumerate(anchors):
                    o, d = out[b, j, i, n], delta[b, j, i, n]
                    predicted = region_box(o, i, j, w, h, anchor)
                    best = max((iou(predicted, t) for t, _ in truths[b]), default=0.0)
                    d[4] = 0 if best > thresh else 0 - sigmoid(o[4])
                    if warm:
                        own = ((i + 0.5) / w, (j + 0.5) / h, *anchor)
                        d[:4] = box_delta(own, o, i, j, w, h, anchor, 0.01)
        for truth, label in truths[b]:
            n, i, j = best_shape(truth, anchors), int(truth[0] * w), int(truth[1] * h)
            o, d = out[b, j, i, n], delta[b, j, i, n]
            d[:4] = box_delta(truth, o, i, j, w, h, anchors[n], 2 - truth[2] * truth[3])
            d[4] = object_scale * (iou(region_box(o, i, j, w, h, anchors[n]), truth) - sigmoid(o[4]))
            share = np.exp(o[5:] - o[5:].max())
            share /= share.sum()
            d[5:] = np.eye(len(share))[label] - share
    return delta


def detection_deltas(out: np.ndarray, truths: list[list[tuple[Box, int]]]) -> np.ndarray:
    """YOLOv1: out [B, S, S, 2, 5 + K], the classes of a cell in its first box alone; the last box of a cell counts."""
    count, side, _, boxes = out.shape[:4]
    delta = np.zeros_like(out)
    for b in range(count):
        cells = {(int(t[1] * side), int(t[0] * side)): (t, label) for t, label in truths[b]}
        for j in range(side):
            for i in range(side):
                for n in range(boxes):
                    delta[b, j, i, n, 4] = 0.5 * (0 - out[b, j, i, n, 4])
                if (j, i) not in cells:
                    continue
                truth, label = cells[j, i]
                for c in range(out.shape[4] - 5):
                    delta[b, j, i, 0, 5 + c] = (c == label) - out[b, j, i, 0, 5 + c]
                chosen, best, least = -1, 0.0, 20.0
                for n in range(boxes):
                    o = out[b, j, i, n]
                    found = ((i + o[0]) / side, (j + o[1]) / side, o[2] ** 2, o[3] ** 2)
                    overlap = iou(found, truth)
                    rmse = math.sqrt(sum((f - t) ** 2 for f, t in zip(found, truth, strict=True)))
                    if best > 0 or overlap > 0:
                        if overlap > best:
                            chosen, best = n, overlap
                    elif rmse < least:
                        chosen, least = n, rmse
                o, d = out[b, j, i, chosen], delta[b, j, i, chosen]
                d[4] = best - o[4]
                wanted = (truth[0] * side - i, truth[1] * side - j, math.sqrt(truth[2]), math.sqrt(truth[3]))
                d[:4] = [5 * (t - v) for t, v in zip(wanted, o[:4], strict=True)]
    return delta
