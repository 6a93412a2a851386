"""Non-maximum suppression within groups (classes or levels) of an image: boxes of two groups never meet.

Three forms:
    on a CPU: image by image and group by group, with torchvision's operator.
    on a GPU: all images at once, in fixed shapes and without that operator: it makes the host wait in every image, and
        holds a mask of 800 MB for 80,000 candidates. Here the host waits once.
    in an exported graph, which has no loops: one operator per image, with the groups moved apart. This rounds
        coordinates (by 0.008 px for class 80 at 1344 px), so an IoU close to the threshold may fall on its other side.
        torchvision's `batched_nms` does the same below 1,000 boxes on a CPU and 5,000 on a GPU.

The first two are exact and equal. Shapes: B images, N boxes. A box is dropped when its IoU with a better kept one of
its group is above the threshold (strict, as in py-faster-rcnn, detectron2 and torchvision).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import nms

from detlab.tensors.boxes import pairwise_overlap
from detlab.tensors.structures import PADDING

ENOUGH = 8  # best candidates per wanted box that NMS is tried on first
BLOCK = 2048  # boxes of an image that are compared at a time on a GPU: overlaps of 16 images take 256 MB
PAIRS = 2**26  # pairs of boxes, of all levels and images, that are compared at a time on a GPU: 256 MB
ROUNDS = 16  # rounds of `_settle` between two looks at the result; a chain of boxes that drop one another is shorter


def first_kept(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, most: int) -> Tensor:
    """Indices of the first `most` boxes [N, 4] that NMS within groups [N] keeps, by falling score [N]; for a CPU.

    Only a better box can suppress a box. If NMS over the best `ENOUGH * most` boxes (and their ties) keeps `most`, it
    has therefore found the answer, and the rest need no comparison: most of the 400 candidates per class of an SSD.
    """
    if len(scores) > 2 * ENOUGH * most:
        best = (scores >= scores.topk(ENOUGH * most).values[-1]).nonzero()[:, 0]
        keep = best[kept(boxes[best], scores[best], groups[best], threshold)]
        if len(keep) >= most:
            return keep[:most]
    return kept(boxes, scores, groups, threshold)[:most]


def kept(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of all boxes [N, 4] that NMS within groups [N] keeps, by falling score [N]; the first of equals leads."""
    order = scores.argsort(descending=True, stable=True)
    by_group = order[groups[order].argsort(stable=True)]
    own, own_scores = boxes[by_group], scores[by_group]
    counts = groups[by_group].unique_consecutive(return_counts=True)[1].tolist()
    marks = torch.zeros_like(order, dtype=torch.bool)
    parts = zip(*(x.split(counts) for x in (by_group, own, own_scores)), strict=True)
    for rows, box, score in parts:
        marks[rows if len(rows) == 1 else rows[nms(box, score, threshold)]] = True
    return order[marks[order]]


def first_kept_at_once(
    scores: Tensor,
    groups: Tensor,
    boxes_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    threshold: float,
    most: int,
) -> Tensor:
    """The first `most` of C candidates that NMS keeps in each image, by falling score: rows [B, most], C where empty.

    As in `first_kept`, the best few are tried first; where they do not keep `most`, the next few follow, against the
    boxes kept so far. The host waits once for each turn.

    Args:
        scores: [B, C]; `PADDING` where a candidate is not usable.
        groups: [B, C] int64, not negative.
        boxes_of: rows [B, N] of candidates -> their boxes [B, N, 4], and which are usable [B, N] bool.
        threshold: IoU.
        most: boxes kept per image.
    """
    batch, count = scores.shape
    rows = torch.full((batch, most), count, device=scores.device)
    own_groups = torch.full_like(rows, PADDING)
    own_boxes = scores.new_zeros(batch, most, 4)
    if count == 0:
        return rows
    few = min(max(ENOUGH * most, 1), BLOCK, count)
    top, order = scores.sort(dim=1, descending=True, stable=True)
    for start in range(0, count, few):
        end = min(start + few, count)
        next_rows = order[:, start:end]
        next_groups = groups.gather(1, next_rows)
        boxes, usable = boxes_of(next_rows)
        usable = usable & (top[:, start:end] > PADDING)
        usable &= ~_drops(own_boxes, boxes, threshold, own_groups, next_groups).any(dim=1)
        pairs = _drops(boxes, boxes, threshold, next_groups, next_groups).triu_(1)
        alive, settled = usable, False
        while not settled:
            alive, sure = _settle(pairs, usable, alive)
            place = (own_groups >= 0).sum(1, keepdim=True) + alive.cumsum(1) - 1
            place = torch.where(alive, place, most).clamp(max=most)  # the rest share an extra slot
            found = _with_rows(rows, place, next_rows)
            full = found[:, -1] < count
            done = sure if end == count else sure & (full | (top[:, end] <= PADDING)).all()
            if bool(done):
                return found
            settled = bool(sure)
        rows, own_groups = found, _with_rows(own_groups, place, next_groups)
        own_boxes = _with_rows(own_boxes, place, boxes)
    return rows


def kept_at_once(boxes: Tensor, usable: Tensor, widths: Sequence[int], threshold: float) -> Tensor:
    """Which boxes NMS within levels keeps in each image, [B, N] bool; the host waits once.

    Args:
        boxes: [B, N, 4], level by level, and by falling score within each.
        usable: [B, N] bool.
        widths: boxes of each level, N in sum.
        threshold: IoU.
    """
    levels = list(zip(boxes.split(list(widths), 1), usable.split(list(widths), 1), strict=True))
    together = max(1, PAIRS // max(1, len(boxes) * min(max(widths), BLOCK) ** 2))
    rounds = ROUNDS
    while True:
        parts = [_kept_of_levels(levels[i : i + together], threshold, rounds) for i in range(0, len(levels), together)]
        if bool(torch.stack([sure for _, sure in parts]).all()):
            return torch.cat([alive for alive, _ in parts], dim=1)
        rounds *= 4


def _kept_of_levels(levels: Sequence[tuple[Tensor, Tensor]], threshold: float, rounds: int) -> tuple[Tensor, Tensor]:
    """`_kept_of_level` of several levels at once, as if they were images; the results side by side."""
    widths = [usable.shape[1] for _, usable in levels]
    missing = [max(widths) - width for width in widths]
    boxes = torch.cat([F.pad(box, (0, 0, 0, rest)) for (box, _), rest in zip(levels, missing, strict=True)])
    usable = torch.cat([F.pad(use, (0, rest)) for (_, use), rest in zip(levels, missing, strict=True)])
    alive, sure = _kept_of_level(boxes, usable, threshold, rounds)
    rows = zip(alive.chunk(len(levels)), widths, strict=True)
    return torch.cat([row[:, :width] for row, width in rows], dim=1), sure


def _kept_of_level(boxes: Tensor, usable: Tensor, threshold: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Boxes [B, N, 4] by falling score that NMS keeps, [B, N] bool, and whether that is certain (scalar bool)."""
    found: list[Tensor] = []
    certain = []
    blocks = boxes.split(BLOCK, 1)
    for box, use in zip(blocks, usable.split(BLOCK, 1), strict=True):
        for better, alive in zip(blocks, found, strict=False):
            use = use & ~(_drops(better, box, threshold) & alive[:, :, None]).any(dim=1)
        alive, sure = _settle(_drops(box, box, threshold).triu_(1), use, use, rounds)
        found.append(alive)
        certain.append(sure)
    return torch.cat(found, dim=1), torch.stack(certain).all()


def _drops(
    better: Tensor, boxes: Tensor, threshold: float, groups: Tensor | None = None, others: Tensor | None = None
) -> Tensor:
    """Which of `better` [B, M, 4] would drop which of `boxes` [B, N, 4], [B, M, N]; groups [B, M], others [B, N]."""
    above = pairwise_overlap(better, boxes) > _as_compared(threshold, boxes.dtype)
    if groups is None or others is None:
        return above
    return above.logical_and_(groups[:, :, None] == others[:, None])


def _settle(pairs: Tensor, usable: Tensor, alive: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Which boxes NMS keeps, [B, N] bool, and whether that is certain (scalar bool).

    A box is kept if no better kept one drops it: pairs [B, N, N] is true only above the diagonal. Each round applies
    this rule to all boxes at once, starting from `alive` [B, N], which may be any guess. After round i the decisions of
    the i best boxes stand; once a round changes nothing, all do, since only one answer satisfies the rule.
    """
    before = alive
    for _ in range(rounds):
        before, alive = alive, usable & ~(pairs & alive[:, :, None]).any(dim=1)
    return alive, (before == alive).all()


def _with_rows(values: Tensor, place: Tensor, rows: Tensor) -> Tensor:
    """values [B, D, ...] with rows [B, N, ...] written to the places [B, N]; place D is dropped."""
    slots = values.shape[1]
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (0, 1))
    index = place.reshape(*place.shape, *[1] * (values.dim() - 2)).expand_as(rows)
    return padded.scatter(1, index, rows)[:, :slots]


def _as_compared(threshold: float, dtype: torch.dtype) -> float:
    """The threshold for a comparison in `dtype`; torchvision's operator compares in float64.

    x > threshold holds for a float32 x if x is above the largest float32 that is not above the threshold.
    """
    if dtype == torch.float64:
        return threshold
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))


def kept_in_graph(boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor, threshold: float, most: int) -> Tensor:
    """Rows [B, most] that NMS keeps, by falling score; the number of candidates where empty.

    One NMS per image, or one in all where a graph leaves the number of images open: its cost is quadratic in them.
    """
    batch: int | torch.SymInt = boxes.shape[0]
    if isinstance(batch, int):
        inputs = zip(boxes, scores, groups, usable, strict=True)
        return torch.stack([_kept_in_image(*one, threshold, most) for one in inputs])
    candidates, step = scores.shape[1], boxes.max() + 1
    image = torch.arange(batch, device=boxes.device)[:, None].expand_as(groups)
    shift = torch.stack([groups, image, groups, image], dim=2)  # separates classes in x and images in y
    apart = (boxes + shift.to(boxes.dtype) * step).flatten(0, 1)
    rows = usable.flatten().nonzero()[:, 0]
    kept = rows[nms(apart[rows], scores.flatten()[rows], threshold)]
    marks = torch.zeros_like(usable.flatten()).index_fill(0, kept, True).view_as(usable)
    top, index = torch.where(marks, scores, PADDING).topk(min(most, candidates), dim=1)
    index = torch.where(top > PADDING, index, candidates)
    return F.pad(index, (0, most - index.shape[1]), value=candidates)


def _kept_in_image(
    boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor, threshold: float, most: int
) -> Tensor:
    """Rows [most] that NMS within each group keeps, by falling score; C, the number of rows, marks an empty slot."""
    apart = boxes + groups.to(boxes.dtype)[:, None] * (boxes.max() + 1)
    rows = usable.nonzero()[:, 0]
    kept = rows[nms(apart[rows], scores[rows], threshold)]
    place = (torch.ones_like(kept).cumsum(0) - 1).clamp(max=most)  # surplus rows share the extra slot
    return kept.new_full((most + 1,), len(scores)).scatter(0, place, kept)[:most]
