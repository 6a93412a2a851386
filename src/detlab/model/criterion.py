"""One stage's loss: match, unreduced losses, sample, reduce; batched over the whole batch.

RPN, dense heads, default boxes and RoI heads all use this criterion, with different parts.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor, distributed, nn

from detlab.model.coders import BoxCoder
from detlab.model.losses import BoxLoss, ClassificationLoss, loss_of_anchors
from detlab.model.matchers import IGNORED, POSITIVE, Matcher
from detlab.model.samplers import Sampler, draw
from detlab.ranges import NonNegative, OneOf
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.ranks import together
from detlab.tensors.structures import Prediction, Targets

NORMALIZERS = ("positives", "images", "sampled", "paper")


class Assignment(NamedTuple):
    """Training targets of each anchor; they depend on boxes only and have no gradient."""

    labels: Tensor  # [B, A] int64: 0..K-1, K background
    boxes: Tensor  # [B, A, 4]: the matched box; the anchor itself where there is none
    state: Tensor  # [B, A] int8: POSITIVE, NEGATIVE or IGNORED


class Criterion(nn.Module):
    """Reduces the unreduced losses of a stage to `loss_cls` and `loss_box`.

    Args:
        matcher, sampler, cls_loss, box_loss, coder: the stage's parts.
        normalizer: what the sums are divided by.
            positives: positives of the batch, in training over all processes (count / world size), at least 1.
            images: each image by its own positives, then the mean over images (torchvision's RetinaNet).
            sampled: sampled anchors or RoIs of the batch, in training over all processes (RPN, RoI head).
            paper: Faster R-CNN's equation 1: classification by the sampled anchors, boxes by the map's
                locations; combine with box_weight=10.
        cls_weight, box_weight: factors of the two losses.
    """

    of_cells = False  # whether it takes anchors with their cells, and objectness (YOLO)

    def __init__(
        self,
        *,
        matcher: Matcher,
        sampler: Sampler,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        coder: BoxCoder,
        normalizer: Annotated[str, OneOf(NORMALIZERS)] = "positives",
        cls_weight: NonNegative = 1.0,
        box_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        if normalizer not in NORMALIZERS:
            raise ValueError(
                f"model.criterion.normalizer={normalizer} is not known; use one of {', '.join(NORMALIZERS)}."
            )
        self.matcher, self.sampler, self.coder = matcher, sampler, coder
        self.cls_loss, self.box_loss = cls_loss, box_loss
        self.normalizer, self.cls_weight, self.box_weight = normalizer, cls_weight, box_weight

    @torch.no_grad()
    def assign(self, anchors: Tensor, targets: Targets, num_classes: int, usable: Tensor | None = None) -> Assignment:
        """Labels and boxes for anchors [1 or B, A, 4] (px, xyxy); anchors not `usable` [B, A] are ignored."""
        matches = self.matcher(_unusable_shrunk(anchors, usable), targets)
        if usable is not None:
            matches = matches._replace(state=torch.where(usable, matches.state, IGNORED))
        if targets.labels.shape[1] == 0:
            labels = torch.full_like(matches.index, num_classes)
            boxes = anchors.expand(labels.shape[0], -1, -1)
            return Assignment(labels, boxes, matches.state)
        positive = matches.state == POSITIVE
        labels = torch.where(positive, targets.labels.gather(1, matches.index), num_classes)
        matched = targets.boxes.gather(1, matches.index[..., None].expand(-1, -1, 4))
        boxes = torch.where(positive[..., None], matched, anchors)
        return Assignment(labels, boxes, matches.state)

    def forward(
        self,
        prediction: Prediction,
        anchors: Tensor,
        assignment: Assignment,
        keys: Tensor,
        stage: int,
        locations: int = 1,
        chosen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a stage, both scalars and weighted.

        Args:
            prediction: logits [B, A, O]; deltas [B, A, 4], or [B, A, K, 4] of which the true class's row is used.
            anchors: [1 or B, A, 4] px, xyxy.
            assignment: from `assign`.
            keys: [B] int64, seeds of the random draws; `stage` tells stages of one model apart.
            locations: map positions per image, for normalizer=paper.
            chosen: [B, A] bool, rows already sampled (RoI heads sample before they pool).
        """
        with torch.autocast(prediction.logits.device.type, enabled=False):
            cls = loss_of_anchors(self.cls_loss, prediction.logits, assignment.labels)  # [B, A]
            if chosen is None:
                draws = draw(keys, stage, cls.shape[1])
                chosen = self.sampler(assignment.state, cls.detach(), draws)
            positive = chosen & (assignment.state == POSITIVE)
            deltas = _of_class(at_least_float32(prediction.deltas), assignment.labels)
            # Rows without a box get zero offsets and their anchor as target: every loss and gradient is finite.
            deltas = torch.where(positive[..., None], deltas, 0)
            box = self.box_loss(self.coder, deltas, anchors, assignment.boxes)  # [B, A]
            box = torch.where(positive, box, 0)
            cls = torch.where(chosen, cls, 0)
            losses = self._reduce(cls, box, positive, chosen, locations)
        return {"loss_cls": self.cls_weight * losses[0], "loss_box": self.box_weight * losses[1]}

    def _reduce(
        self, cls: Tensor, box: Tensor, positive: Tensor, chosen: Tensor, locations: int
    ) -> tuple[Tensor, Tensor]:
        if self.normalizer == "images":
            count = positive.sum(1).clamp(min=1)
            return (cls.sum(1) / count).mean(), (box.sum(1) / count).mean()
        if self.normalizer == "positives":
            count = share_of_processes(positive.sum(), cls.dtype)
            return cls.sum() / count, box.sum() / count
        count = share_of_processes(chosen.sum(), cls.dtype)
        if self.normalizer == "sampled":
            return cls.sum() / count, box.sum() / count
        return cls.sum() / count, box.sum() / (locations * cls.shape[0])


def _unusable_shrunk(anchors: Tensor, usable: Tensor | None) -> Tensor:
    """Anchors, with those that are not usable shrunk to a point, which overlaps nothing."""
    return anchors if usable is None else torch.where(usable[..., None], anchors, 0)


def share_of_processes(count: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean of a count over all processes, at least 1 / their number.

    DDP averages gradients over the processes. Sums that are divided by this mean therefore give the gradient of the
    whole batch's sums divided by the whole count. Without gradients, in an evaluation, each batch uses its own count,
    so that its loss does not depend on the number of processes.

    Args:
        count: int64 scalar; integers add up over processes without rounding.
        dtype: of the result.
    """
    if not (torch.is_grad_enabled() and together()):
        return count.clamp(min=1).to(dtype)
    count = count.clone()
    distributed.all_reduce(count)
    return count.clamp(min=1).to(dtype) / distributed.get_world_size()


def _of_class(deltas: Tensor, labels: Tensor) -> Tensor:
    """The offsets [B, A, 4] of each row's class from [B, A, 4] (class-agnostic) or [B, A, K, 4]."""
    if deltas.dim() == 3:
        return deltas
    column = labels.clamp(max=deltas.shape[2] - 1)[..., None, None].expand(-1, -1, 1, 4)
    return deltas.gather(2, column).squeeze(2)
