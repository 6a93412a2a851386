"""From scores and offsets to boxes: threshold, top-k, decode, clip, NMS; and back to the original image.

Nothing here depends on training mode. NMS runs image by image, because one call over a batch would be quadratic in the
number of images on a CPU. Everything before it is batched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, nms

from detlab.model.coders import BoxCoder
from detlab.ranges import Count, Fraction, NonNegative, PerImage
from detlab.tensors.boxes import at_least_float32, clip, sides
from detlab.tensors.structures import PADDING, Batch, Detections, Proposals, fixed_shapes

ENOUGH = 8  # best candidates per wanted detection that NMS is tried on first, see `_first_kept`


class Detect(nn.Module):
    """Final boxes of a detector, per class.

    Args:
        score_threshold: scores must be above it.
        topk: candidates per level (RetinaNet) or per image (RoI heads) that reach NMS; null for all.
        topk_per_class: candidates of each class that reach NMS (SSD); null for all. In place of topk.
        nms_threshold: a box is dropped when its IoU with a better one of its class is above it (strict, as in
            py-faster-rcnn, detectron2 and torchvision).
        max_detections: boxes kept per image.
        min_size: shortest side of a box, px of the canvas.
        nms_first: NMS compares the boxes as they are before regression (R-CNN).
    """

    class_wise = True  # scores and suppresses each class by itself

    def __init__(
        self,
        *,
        score_threshold: Fraction = 0.05,
        topk: Count | None = 1000,
        nms_threshold: Fraction = 0.5,
        max_detections: PerImage = 100,
        min_size: NonNegative = 0.0,
        nms_first: bool = False,
        topk_per_class: Count | None = None,
    ) -> None:
        super().__init__()
        if topk is not None and topk_per_class is not None:
            raise ValueError(
                f"model.detect takes topk={topk} or topk_per_class={topk_per_class}, not both; set one to null."
            )
        self.score_threshold, self.topk, self.nms_threshold = score_threshold, topk, nms_threshold
        self.topk_per_class = topk_per_class
        self.max_detections, self.min_size, self.nms_first = max_detections, min_size, nms_first

    @torch.no_grad()
    def forward(
        self,
        scores: Tensor,
        deltas: Tensor,
        references: Tensor,
        coder: BoxCoder,
        sizes: Tensor,
        counts: Sequence[int] | None = None,
    ) -> Detections:
        """Detections in canvas pixels, D = max_detections rows per image.

        Args:
            scores: [B, A, K] probabilities; rows of padded proposals hold 0.
            deltas: [B, A, 4] or [B, A, K, 4].
            references: anchors or proposals [1 or B, A, 4] px, xyxy; YOLO's [1, A, 8], each with its cell.
            sizes: [B, 2] (height, width) to clip to.
            counts: anchors of each level, if top-k is per level.
        """
        classes = scores.shape[2]
        if self.topk_per_class is None:
            top, index = _top_per_level(at_least_float32(scores), counts or [scores.shape[1]], self.topk)
        else:
            top, index = _top_per_class(at_least_float32(scores), self.topk_per_class)
        row, label = index // classes, index % classes
        per_class = deltas.dim() == 4 and deltas.shape[2] > 1
        offset_row = index if per_class else row
        offsets = deltas.reshape(deltas.shape[0], -1, 4).gather(1, offset_row[..., None].expand(-1, -1, 4))
        start = _rows_of(references, row)
        boxes = clip(coder.decode(start, offsets), sizes)
        return self.suppress(boxes, top, label, start[..., :4] if self.nms_first else None)

    def suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, rivals: Tensor | None = None) -> Detections:
        """NMS per class and image over candidates.

        Args:
            boxes: [B, C, 4] canvas px, xyxy.
            scores, labels: [B, C].
            rivals: [B, C, 4] boxes whose IoU NMS compares; None for `boxes`.
        """
        rivals = boxes if rivals is None else rivals
        usable = scores > self.score_threshold
        if self.min_size > 0:
            w, h = sides(boxes)
            usable &= (w >= self.min_size) & (h >= self.min_size)
        if fixed_shapes(boxes):
            rows = _kept_rows(rivals, scores, labels, usable, self.nms_threshold, self.max_detections)
            return Detections(_pick(boxes, rows, 0), _pick(scores, rows, 0), _pick(labels, rows, PADDING))
        found = []
        for box, rival, score, label, use in zip(boxes, rivals, scores, labels, usable, strict=True):
            box, score, label = box[use], score[use], label[use]
            keep = _first_kept(rival[use], score, label, self.nms_threshold, self.max_detections)
            found.append((box[keep], score[keep], label[keep]))
        return _pad_detections(found, self.max_detections, boxes)


def _first_kept(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, most: int) -> Tensor:
    """Indices of the first `most` boxes that NMS within labels keeps, by falling score.

    Only a better box can suppress a box. If NMS over the best `ENOUGH * most` boxes (and their ties) keeps `most`, it
    has therefore found the answer, and the rest need no comparison: most of the 400 candidates per class of an SSD.
    (Below 1,000 boxes `batched_nms` separates classes by an offset, which rounds coordinates: an IoU close to the
    threshold may fall on its other side.)
    """
    if len(scores) > 2 * ENOUGH * most:
        best = (scores >= scores.topk(ENOUGH * most).values[-1]).nonzero()[:, 0]
        keep = best[batched_nms(boxes[best], scores[best], labels[best], threshold)]
        if len(keep) >= most:
            return keep[:most]
    return batched_nms(boxes, scores, labels, threshold)[:most]


class ProposalDetect(nn.Module):
    """Proposals of an RPN: class-agnostic, NMS within each level (Faster R-CNN section 3.3; FPN section 4.1).

    Steps: top pre-NMS scores per level, decode, clip, drop small boxes, NMS, top post-NMS over all levels.

    Args:
        pre_nms_train, pre_nms_test: candidates per level that reach NMS.
        post_nms_train, post_nms_test: proposals kept per image.
        nms_threshold: IoU above which the lower-scored one of two boxes of a level is dropped.
        min_size: shortest side kept, px of the canvas.
    """

    class_wise = False

    def __init__(
        self,
        *,
        pre_nms_train: PerImage,
        pre_nms_test: PerImage,
        post_nms_train: PerImage,
        post_nms_test: PerImage,
        nms_threshold: Fraction = 0.7,
        min_size: NonNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.pre_nms = {True: pre_nms_train, False: pre_nms_test}
        self.post_nms = {True: post_nms_train, False: post_nms_test}
        self.nms_threshold, self.min_size = nms_threshold, min_size

    @property
    def max_detections(self) -> int:
        """Proposals kept per image in testing."""
        return self.post_nms[False]

    def keep_in_testing(self, count: int) -> None:
        """Keep `count` proposals per image in testing, from at least as many candidates per level."""
        self.post_nms[False] = count
        self.pre_nms[False] = max(self.pre_nms[False], count)

    @torch.no_grad()
    def forward(
        self,
        scores: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        coder: BoxCoder,
        sizes: Tensor,
        counts: Sequence[int],
        *,
        for_training: bool,
    ) -> Proposals:
        """Proposals without gradient from scores [B, A], deltas [B, A, 4], anchors [1, A, 4]; by falling score."""
        scores = at_least_float32(scores)
        top, row = _top_per_level(scores[..., None], counts, self.pre_nms[for_training])
        offsets = deltas.gather(1, row[..., None].expand(-1, -1, 4))
        boxes = clip(coder.decode(_rows_of(anchors, row), offsets), sizes)
        level = _levels(counts, self.pre_nms[for_training], row)
        w, h = sides(boxes)
        usable = (w >= self.min_size) & (h >= self.min_size)
        most = self.post_nms[for_training]
        if fixed_shapes(boxes):
            rows = _kept_rows(boxes, top, level, usable, self.nms_threshold, most)
            return Proposals(_pick(boxes, rows, 0), _pick(top, rows, PADDING))
        found = []
        for box, score, group, use in zip(boxes, top, level, usable, strict=True):
            box, score, group = box[use], score[use], group[use]
            keep = batched_nms(box, score, group, self.nms_threshold)[:most]
            found.append((box[keep], score[keep]))
        longest = max(len(s) for _, s in found)
        out = boxes.new_zeros(len(found), longest, 4)
        out_scores = top.new_full((len(found), longest), -1.0)
        for i, (box, score) in enumerate(found):
            out[i, : len(score)], out_scores[i, : len(score)] = box, score
        return Proposals(out, out_scores)


def to_original(detections: Detections, batch: Batch) -> Detections:
    """Detections of a batch in pixels of the images as stored, clipped to them."""
    scale = (batch.original_sizes / batch.sizes).flip(-1).repeat(1, 2)  # (x, y, x, y)
    boxes = detections.boxes * scale[:, None].to(detections.boxes.dtype)
    return detections._replace(boxes=clip(boxes, batch.original_sizes))


def _top_per_level(scores: Tensor, counts: Sequence[int], k: int | None) -> tuple[Tensor, Tensor]:
    """The k highest of each level's scores [B, A, K]: scores [B, C] and their index in the flattened [A * K].

    Level i has counts[i] anchors. If all scores of a level are taken, they keep their order.
    """
    tops, indices, start = [], [], 0
    for part in scores.split(list(counts), dim=1):
        top, index = _top(part, k)
        tops.append(top)
        indices.append(index + start * scores.shape[2])
        start += part.shape[1]
    return torch.cat(tops, dim=1), torch.cat(indices, dim=1)


def _top(scores: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
    """The k highest of scores [B, n, K]: [B, k] and their index in the flattened [n * K]."""
    batch, count, classes = scores.shape
    if k is None or k >= count * classes:
        return scores.flatten(1), torch.arange(count * classes, device=scores.device).expand(batch, -1)
    if k >= count or classes == 1:
        return scores.flatten(1).topk(k, dim=1)
    # The k highest scores all lie in the k anchors with the highest maximum: a 90th of the work with 90 classes.
    anchor = scores.amax(2).topk(k, dim=1, sorted=False).indices
    top, place = scores.gather(1, anchor[..., None].expand(-1, -1, classes)).flatten(1).topk(k, dim=1)
    return top, anchor.gather(1, place // classes) * classes + place % classes


def _levels(counts: Sequence[int], k: int | None, like: Tensor) -> Tensor:
    """The level of each column of `_top_per_level`'s result, in the shape [B, C] of `like`."""
    widths = [count if k is None else min(k, count) for count in counts]
    parts = [like.new_full((width,), i) for i, width in enumerate(widths)]
    return torch.cat(parts).expand_as(like)


def _kept_rows(boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor, threshold: float, most: int) -> Tensor:
    """`_kept` of every image, [B, most]; one NMS call where an exported graph leaves the number of images open."""
    batch: int | torch.SymInt = boxes.shape[0]
    if isinstance(batch, int):
        inputs = zip(boxes, scores, groups, usable, strict=True)
        return torch.stack([_kept(*one, threshold, most) for one in inputs])
    candidates, step = scores.shape[1], boxes.max() + 1
    image = torch.arange(batch, device=boxes.device)[:, None].expand_as(groups)
    shift = torch.stack([groups, image, groups, image], dim=2)  # separates classes in x and images in y
    apart = (boxes + shift.to(boxes.dtype) * step).flatten(0, 1)
    rows = usable.flatten().nonzero()[:, 0]
    kept = rows[nms(apart[rows], scores.flatten()[rows], threshold)]
    marks = torch.zeros_like(usable.flatten()).index_fill(0, kept, True).view_as(usable)
    top, index = torch.where(marks, scores, PADDING).topk(min(most, candidates), dim=1)
    index = torch.where(top > PADDING, index, candidates)
    return torch.nn.functional.pad(index, (0, most - index.shape[1]), value=candidates)


def _kept(boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor, threshold: float, most: int) -> Tensor:
    """Rows [most] that NMS within each group keeps, by falling score; index C, the number of rows, marks an empty slot.

    Groups are separated by an offset, as in torchvision's batched_nms. Only NMS itself makes the host wait.
    """
    apart = boxes + groups.to(boxes.dtype)[:, None] * (boxes.max() + 1)
    if boxes.is_cuda:
        kept = nms(apart, torch.where(usable, scores, PADDING), threshold)  # unusable rows come last
        kept = torch.where(usable[kept], kept, len(scores))
    else:
        rows = usable.nonzero()[:, 0]
        kept = rows[nms(apart[rows], scores[rows], threshold)]
    place = (torch.ones_like(kept).cumsum(0) - 1).clamp(max=most)  # surplus rows share the extra slot
    return kept.new_full((most + 1,), len(scores)).scatter(0, place, kept)[:most]


def _pick(values: Tensor, rows: Tensor, fill: float) -> Tensor:
    """Rows [B, D] of values [B, C, ...]; index C gives `fill`."""
    padded = torch.cat([values, values.new_full((values.shape[0], 1, *values.shape[2:]), fill)], dim=1)
    index = rows.reshape(*rows.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
    return padded.gather(1, index)


def _top_per_class(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each class of scores [B, A, K]: scores [B, C] and their index in the flattened [A * K]."""
    classes = scores.shape[2]
    top, row = scores.transpose(1, 2).topk(min(k, scores.shape[1]), dim=2)  # [B, K, k]
    index = row * classes + torch.arange(classes, device=scores.device)[:, None]
    return top.flatten(1), index.flatten(1)


def _rows_of(references: Tensor, row: Tensor) -> Tensor:
    """Rows [B, C] of references [1 or B, A, 4] -> [B, C, 4]."""
    if references.shape[0] == 1:
        return references[0][row]
    return references.gather(1, row[..., None].expand(-1, -1, 4))


def _pad_detections(found: list[tuple[Tensor, Tensor, Tensor]], rows: int, like: Tensor) -> Detections:
    boxes = like.new_zeros(len(found), rows, 4)
    scores = like.new_zeros(len(found), rows)
    labels = torch.full((len(found), rows), PADDING, dtype=torch.int64, device=like.device)
    for i, (box, score, label) in enumerate(found):
        n = len(score)
        boxes[i, :n], scores[i, :n], labels[i, :n] = box, score, label
    return Detections(boxes, scores, labels)
