"""From scores and offsets to boxes: threshold, top-k, decode, clip, NMS; and back to the original image.

Nothing here depends on training mode. Everything is batched; on a CPU only NMS runs image by image
(`detlab.model.nms`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detlab.model.coders import BoxCoder
from detlab.model.nms import first_kept, first_kept_at_once, kept, kept_at_once, kept_in_graph
from detlab.model.overflow import Overflow
from detlab.ranges import Count, Fraction, NonNegative, PerImage
from detlab.tensors.boxes import at_least_float32, clip, sides
from detlab.tensors.structures import PADDING, Batch, Detections, Proposals, in_graph

LARGEST_PART = 2**26  # scores of one part of a batch (256 MB), see `Detect.best`
Activation = Callable[[Tensor, slice], Tensor]  # logits [b, A, O] of these images of a batch -> scores [b, A, K]


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
        self.overflow = Overflow()

    @torch.no_grad()
    def forward(
        self,
        scores: Tensor,
        deltas: Tensor,
        references: Tensor,
        coder: BoxCoder,
        sizes: Tensor,
        counts: Sequence[int] | None = None,
        activation: Activation | None = None,
    ) -> Detections:
        """Detections in canvas pixels, D = max_detections rows per image.

        Args:
            scores: [B, A, K] probabilities; rows of padded proposals hold 0. With `activation`, logits [B, A, O].
            deltas: [B, A, 4] or [B, A, K, 4].
            references: anchors or proposals [1 or B, A, 4] px, xyxy; YOLO's [1, A, 8], each with its cell.
            sizes: [B, 2] (height, width) to clip to.
            counts: anchors of each level, if top-k is per level.
            activation: makes the scores of some images of the batch from their logits.
        """
        if not in_graph():
            self.overflow.see(scores, deltas)
        top, index, classes = self._best(scores, counts or [scores.shape[1]], activation)
        label = index % classes
        per_class = deltas.dim() == 4 and deltas.shape[2] > 1
        deltas = deltas.reshape(deltas.shape[0], -1, 4)

        def decoded(index: Tensor) -> tuple[Tensor, Tensor]:
            row = index // classes
            offsets = deltas.gather(1, (index if per_class else row)[..., None].expand(-1, -1, 4))
            start = _rows_of(references, row)
            boxes = clip(coder.decode(start, offsets), sizes)
            return boxes, start[..., :4] if self.nms_first else boxes

        if at_once(top):
            return self._suppress_at_once(lambda rows: decoded(index.gather(1, rows)), top, label)
        boxes, rivals = decoded(index)
        return self.suppress(boxes, top, label, rivals)

    def suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, rivals: Tensor | None = None) -> Detections:
        """NMS per class and image over candidates.

        Args:
            boxes: [B, C, 4] canvas px, xyxy.
            scores, labels: [B, C].
            rivals: [B, C, 4] boxes whose IoU NMS compares; None for `boxes`.
        """
        rivals = boxes if rivals is None else rivals
        if at_once(boxes):
            return self._suppress_at_once(lambda rows: (_rows_of(boxes, rows), _rows_of(rivals, rows)), scores, labels)
        usable = (scores > self.score_threshold) & self._large_enough(boxes)
        if in_graph():
            rows = kept_in_graph(rivals, scores, labels, usable, self.nms_threshold, self.max_detections)
            return Detections(_pick(boxes, rows, 0), _pick(scores, rows, 0), _pick(labels, rows, PADDING))
        found = []
        for box, rival, score, label, use in zip(boxes, rivals, scores, labels, usable, strict=True):
            box, score, label = box[use], score[use], label[use]
            keep = first_kept(rival[use], score, label, self.nms_threshold, self.max_detections)
            found.append((box[keep], score[keep], label[keep]))
        return _pad_detections(found, self.max_detections, boxes)

    def _best(self, scores: Tensor, counts: Sequence[int], activation: Activation | None) -> tuple[Tensor, Tensor, int]:
        """The candidates: scores [B, C], their index [B, C] in the flattened [A * K], and K; arguments as of `forward`.

        A GPU scores large batches in parts, to bound memory: 201,600 anchors x 1,203 classes are 1 GB an image.
        """

        def best(images: slice) -> tuple[Tensor, Tensor, int]:
            own = at_least_float32(scores[images])
            own = own if activation is None else activation(own, images)
            if self.topk_per_class is None:
                return *_top_per_level(own, counts, self.topk), own.shape[2]
            return *_top_per_class(own, self.topk_per_class), own.shape[2]

        batch = scores.shape[0]
        per_part = max(1, LARGEST_PART // max(1, scores.shape[1] * scores.shape[2]))
        if not at_once(scores) or per_part >= batch:
            return best(slice(None))
        parts = [best(slice(start, start + per_part)) for start in range(0, batch, per_part)]
        tops, indices, classes = zip(*parts, strict=True)
        return torch.cat(tops), torch.cat(indices), classes[0]

    def _suppress_at_once(
        self, decoded: Callable[[Tensor], tuple[Tensor, Tensor]], scores: Tensor, labels: Tensor
    ) -> Detections:
        """As `suppress`; rows [B, N] of candidates -> their boxes and rivals [B, N, 4]. Few are decoded."""

        def boxes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
            boxes, rivals = decoded(rows)
            return rivals, self._large_enough(boxes)

        count = scores.shape[1]
        usable = torch.where(scores > self.score_threshold, scores, PADDING)
        groups = labels.clamp(min=0)  # padding among the detections that TTA merges is not usable
        rows = first_kept_at_once(usable, groups, boxes_of, self.nms_threshold, self.max_detections)
        boxes, _ = decoded(rows.clamp(max=count - 1))
        boxes = torch.where((rows < count)[..., None], boxes, 0)
        return Detections(boxes, _pick(scores, rows, 0), _pick(labels, rows, PADDING))

    def _large_enough(self, boxes: Tensor) -> Tensor:
        """[..., 4] -> [...] bool: no side is below `min_size`."""
        if self.min_size == 0:
            return torch.ones_like(boxes[..., 0], dtype=torch.bool)
        w, h = sides(boxes)
        return (w >= self.min_size) & (h >= self.min_size)


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
        self.overflow = Overflow()

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
        if not for_training and not in_graph():
            self.overflow.see(scores, deltas)
        scores = at_least_float32(scores)
        top, row = _top_per_level(scores[..., None], counts, self.pre_nms[for_training])
        offsets = deltas.gather(1, row[..., None].expand(-1, -1, 4))
        boxes = clip(coder.decode(_rows_of(anchors, row), offsets), sizes)
        w, h = sides(boxes)
        usable = (w >= self.min_size) & (h >= self.min_size)
        most = self.post_nms[for_training]
        if at_once(boxes):
            return self._suppress_at_once(boxes, top, usable, counts, for_training)
        level = _levels(counts, self.pre_nms[for_training], row)
        if in_graph():
            rows = kept_in_graph(boxes, top, level, usable, self.nms_threshold, most)
            return Proposals(_pick(boxes, rows, 0), _pick(top, rows, PADDING))
        found = []
        for box, score, group, use in zip(boxes, top, level, usable, strict=True):
            box, score, group = box[use], score[use], group[use]
            keep = kept(box, score, group, self.nms_threshold)[:most]
            found.append((box[keep], score[keep]))
        longest = max(len(s) for _, s in found)
        out = boxes.new_zeros(len(found), longest, 4)
        out_scores = top.new_full((len(found), longest), -1.0)
        for i, (box, score) in enumerate(found):
            out[i, : len(score)], out_scores[i, : len(score)] = box, score
        return Proposals(out, out_scores)

    def _suppress_at_once(
        self, boxes: Tensor, scores: Tensor, usable: Tensor, counts: Sequence[int], for_training: bool
    ) -> Proposals:
        """Proposals from candidates [B, C], level by level."""
        widths = [min(self.pre_nms[for_training], count) for count in counts]
        orders, start = [], 0
        for part in scores.split(widths, dim=1):  # a level that was taken whole is not sorted yet
            orders.append(part.argsort(dim=1, descending=True, stable=True) + start)
            start += part.shape[1]
        order = torch.cat(orders, dim=1)
        boxes, scores = _rows_of(boxes, order), scores.gather(1, order)
        alive = kept_at_once(boxes, usable.gather(1, order), widths, self.nms_threshold)
        top, rows = torch.where(alive, scores, PADDING).sort(dim=1, descending=True, stable=True)
        rows = torch.where(top > PADDING, rows, scores.shape[1])[:, : self.post_nms[for_training]]
        return Proposals(_pick(boxes, rows, 0), _pick(scores, rows, PADDING))


def at_once(x: Tensor) -> bool:
    """Whether NMS should run over all images at once, in fixed shapes: on a GPU, outside graphs."""
    return x.is_cuda and not in_graph()


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
