"""Matchers assign a ground-truth box, or none, to each anchor.

A matcher is given boxes, not an IoU matrix, so that it can assign by other rules (grid cells, centres) as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from detlab.ranges import Fraction
from detlab.tensors.boxes import pairwise_overlap
from detlab.tensors.structures import Targets, fixed_shapes, in_graph

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
LEAST_OVERLAP = 1e-6  # IoU above which SSD's bipartite matching accepts a pair (Caffe)
LOOK_EVERY = 128  # rounds of `greedy_pairs` after which the host asks whether all is settled, and waits for a GPU
LARGEST_MATRIX = 2**26  # elements of one B x M x A overlap tensor (256 MB); larger batches are split


class Matches(NamedTuple):
    """Assignment of A anchors (or R proposals) in each of B images."""

    state: Tensor  # [B, A] int8: POSITIVE, NEGATIVE or IGNORED
    # [B, A] int64: row of the matched box in Targets; meaningful where state is POSITIVE
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used
    overlap: Tensor  # [B, A] float32: best IoU with a box that is not a crowd; 0 where there is none


class Choices(NamedTuple):
    """The anchors that each box would take, best first, for matching box by box."""

    columns: Tensor  # [B, M, width] int64
    rank: Tensor  # [B, M, width] int64: of two pairs the higher one is made first; 0 where a pair is not allowed


def images_at_once(batch: int, pairs: int) -> int:
    """How many images to match at once: the batch, or the largest half, quarter, ... of it within LARGEST_MATRIX.

    Halves, because a compiled graph then serves a range of `pairs`, not one value of it: M changes between batches.

    Args:
        batch: B.
        pairs: elements of one image's matrix, such as M * A.
    """
    images = batch
    while images > 1 and images * pairs > LARGEST_MATRIX:
        images = (images + 1) // 2
    return images


class Matcher(Protocol):
    """Interface of matchers, which are `nn.Module`s."""

    def forward(self, anchors: Tensor, targets: Targets) -> Matches:
        """Match anchors [1 or B, A, 4] (px, xyxy) to the boxes of targets (M rows each), without gradient."""

    def __call__(self, anchors: Tensor, targets: Targets) -> Matches:
        """As `forward`; `nn.Module` has it."""


class IoUMatcher(nn.Module):
    """Assignment by IoU thresholds (Faster R-CNN section 3.1.2, RetinaNet section 4).

    Args:
        positive: IoU from which an anchor is positive.
        negative: IoU below which it is negative; between the two it is ignored.
        force_best: every box also makes its best anchor(s) positive, ties included. The anchor keeps *its own* best
            box, which may be another one. A box that overlaps no anchor forces none (torchvision makes every
            anchor without overlap positive there).
        crowd_overlap: a negative whose area lies in a crowd region by more than this share is ignored
            (Detectron); null to treat crowds as background.
        negative_from: IoU below which an anchor is ignored instead of negative (Fast R-CNN: 0.1, a heuristic for hard
            examples); an image without boxes then gives no negative.
    """

    def __init__(
        self,
        *,
        positive: Fraction,
        negative: Fraction,
        force_best: bool,
        crowd_overlap: Fraction | None = 0.7,
        negative_from: Fraction = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= negative_from <= negative <= positive <= 1:
            raise ValueError(
                f"model.matcher needs 0 <= negative <= positive <= 1 and negative_from <= negative; got "
                f"negative={negative}, positive={positive}, negative_from={negative_from}."
            )
        self.positive, self.negative, self.force_best = positive, negative, force_best
        self.crowd_overlap, self.negative_from = crowd_overlap, negative_from

    def forward(self, anchors: Tensor, targets: Targets) -> Matches:
        """Match anchors [1 or B, A, 4] to the boxes of targets (M rows each)."""
        batch, boxes = targets.labels.shape
        if boxes == 0 or anchors.shape[1] == 0:
            return _without_boxes(batch, anchors, NEGATIVE if self.negative_from == 0 else IGNORED)
        per_part = images_at_once(batch, boxes * anchors.shape[1])
        if per_part == batch:
            return self._paired(*self._match(anchors, targets))
        parts = []
        for start in range(0, batch, per_part):  # split only to bound memory
            rows = slice(start, start + per_part)
            part = Targets(*(t[rows] for t in targets))
            parts.append(self._match(anchors if anchors.shape[0] == 1 else anchors[rows], part))
        matches, choices = zip(*parts, strict=True)
        whole = Matches(*(torch.cat(field) for field in zip(*matches, strict=True)))
        several = [own for own in choices if own is not None]
        return self._paired(whole, Choices(*map(torch.cat, zip(*several, strict=True))) if several else None)

    def _match(self, anchors: Tensor, targets: Targets) -> tuple[Matches, Choices | None]:
        real, crowd = targets.real, targets.crowd
        crowds = fixed_shapes(anchors) or bool(crowd.any())
        overlap = pairwise_overlap(targets.boxes, anchors, crowd if crowds else None)  # [B, M, A]
        crowded = None
        if crowds and self.crowd_overlap is not None:
            inside = torch.where((real & crowd)[..., None], overlap, 0.0).amax(dim=1)
            crowded = inside > self.crowd_overlap  # [B, A]
        iou = overlap.masked_fill_(~(real & ~crowd)[..., None], -1.0)
        best, index = iou.max(dim=1)
        state = torch.full_like(index, IGNORED, dtype=torch.int8)
        background = (best < self.negative) & (best.clamp(min=0) >= self.negative_from)
        state = state.masked_fill(background, NEGATIVE)
        state = state.masked_fill(best >= self.positive, POSITIVE)
        forced, index = self._force(iou, index)
        state = state.masked_fill(forced, POSITIVE)
        if crowded is not None:
            state = state.masked_fill((state == NEGATIVE) & crowded, IGNORED)
        return Matches(state, index, best.clamp(min=0)), self._choices(iou)

    def _choices(self, iou: Tensor) -> Choices | None:
        """What `_paired` needs of iou [B, M, A]."""
        return None

    def _paired(self, matches: Matches, choices: Choices | None) -> Matches:
        """The matches with pairs that are made over all parts of a batch at once."""
        return matches

    def _force(self, iou: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors that are positive regardless of `positive`, [B, A] bool, and every anchor's box [B, A].

        iou [B, M, A] is -1 in rows without a box; index [B, A] is each anchor's own best box.
        """
        if not self.force_best:
            return torch.zeros_like(index, dtype=torch.bool), index
        top = iou.amax(dim=2, keepdim=True)
        return ((iou == top) & (top > 0)).any(dim=1), index


class BipartiteMatcher(IoUMatcher):
    """SSD's assignment: first every box takes an anchor of its own, then anchors take the boxes they overlap.

    The pair of box and anchor with the highest IoU in the image is matched first, then the best pair of the remaining
    boxes and anchors, and so on, as in Caffe. amdegroot's and torchvision's code gives each box its best anchor
    instead; if two boxes have the same best anchor, the first one loses its match there.

    Args:
        positive: IoU from which another anchor is positive, for its own best box.
        negative: IoU below which it may be mined as a negative; ignored between the two.
        crowd_overlap: see `IoUMatcher`.
    """

    def __init__(
        self, *, positive: Fraction = 0.5, negative: Fraction = 0.5, crowd_overlap: Fraction | None = 0.7
    ) -> None:
        super().__init__(positive=positive, negative=negative, force_best=True, crowd_overlap=crowd_overlap)

    def _force(self, iou: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        forced, index = torch.zeros_like(index, dtype=torch.bool), index.clone()
        if fixed_shapes(iou):
            return forced, index
        for box, column, real in _greedy_pairs_on_host(iou):
            forced.scatter_(1, column, forced.gather(1, column) | real)
            index.scatter_(1, column, torch.where(real, box, index.gather(1, column)))
        return forced, index

    def _choices(self, iou: Tensor) -> Choices | None:
        return best_choices(iou) if fixed_shapes(iou) else None

    def _paired(self, matches: Matches, choices: Choices | None) -> Matches:
        if choices is None:
            return matches
        box = greedy_pairs(choices, matches.index.shape[1])
        state = matches.state.masked_fill(box >= 0, POSITIVE)
        return matches._replace(state=state, index=torch.where(box >= 0, box, matches.index))


def best_choices(iou: Tensor) -> Choices:
    """The M best anchors of each box: at most M - 1 other boxes take an anchor before a box does. iou [B, M, A]."""
    boxes, anchors = iou.shape[1:]
    columns = _best_columns(iou, min(boxes, anchors))
    values = iou.gather(2, columns)
    order = torch.arange(boxes - 1, -1, -1, device=iou.device)[:, None]
    rank = torch.where(values > LEAST_OVERLAP, (values.float().view(torch.int32).long() << 32) + order, 0)
    return Choices(columns, rank)


def greedy_pairs(choices: Choices, anchors: int) -> Tensor:
    """The box that each of A anchors is paired with, [B, A]; -1 for none. Shapes do not depend on values.

    All boxes choose at once: each offers itself to its best anchor that no better pair holds. An anchor holds the best
    offer so far, and a box whose anchor got a better one moves on. The stable result is the greedy one, since box and
    anchor rank a pair by the same number (its IoU; of equal ones the first box, then the first anchor). After round i
    the i best pairs stand; nearly always a few rounds suffice.
    """
    columns, rank = choices
    batch, boxes = rank.shape[:2]
    held = rank.new_zeros(batch, anchors)  # rank of the pair that holds an anchor; 0 for none
    for turn in range(boxes):
        free = rank >= held.gather(1, columns.flatten(1)).view_as(rank)
        place = free.to(torch.uint8).argmax(2, keepdim=True)
        offer, column = rank.gather(2, place)[..., 0], columns.gather(2, place)[..., 0]
        before, held = held, held.scatter_reduce(1, column, offer, "amax")
        look = turn % LOOK_EVERY == LOOK_EVERY - 1 and turn < boxes - 1 and not in_graph()
        if look and bool((before == held).all()):
            break
    return torch.where(held > 0, boxes - 1 - (held & 0xFFFFFFFF), -1)


def _greedy_pairs_on_host(iou: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The same pairs on a CPU: a box's best anchor is searched again only when another box has taken it."""
    best, column = iou.max(dim=2)  # [B, M]
    taken = torch.zeros_like(iou[:, 0], dtype=torch.bool)
    for _ in range(min(iou.shape[1:])):
        top, box = best.max(dim=1, keepdim=True)
        if top.max() <= LEAST_OVERLAP:
            return
        own = column.gather(1, box)
        yield box, own, top > LEAST_OVERLAP
        taken.scatter_(1, own, True)
        best.scatter_(1, box, -1.0)
        image, row = ((column == own) & (best > LEAST_OVERLAP)).nonzero(as_tuple=True)
        if len(image):
            best[image, row], column[image, row] = iou[image, row].masked_fill(taken[image], -1.0).max(dim=1)


def _best_columns(iou: Tensor, count: int) -> Tensor:
    """Columns of the `count` highest entries of each row of iou [B, M, A]; of equal entries the first column leads.

    A box inside several anchors of a level has the same IoU with all of them. topk orders such ties in a way that
    depends on `count`, and so on the other images of the batch. The sort key here is the bits of the float32, which for
    values that are not negative have the same order as the values, followed by the column.
    """
    columns = torch.arange(iou.shape[2], device=iou.device)
    keys = (iou.float().clamp(min=0).view(torch.int32).long() << 32) + (iou.shape[2] - 1 - columns)
    return keys.topk(count, dim=2).indices


def _without_boxes(batch: int, anchors: Tensor, kind: int) -> Matches:
    """Matches of a batch without any box or any anchor: every anchor has the state `kind`."""
    shape = (batch, anchors.shape[1])
    state = torch.full(shape, kind, dtype=torch.int8, device=anchors.device)
    index = torch.zeros(shape, dtype=torch.int64, device=anchors.device)
    return Matches(state, index, torch.zeros(shape, device=anchors.device))
