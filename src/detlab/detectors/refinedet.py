"""RefineDet: anchors are refined, then classified and regressed again on transferred maps.

Single-Shot Refinement Neural Network for Object Detection; ARM is the anchor refinement module, TCB the transfer
connection block, ODM the object detection module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detlab.detectors.detector import Detector, Features, once
from detlab.model.anchors import AnchorGenerator
from detlab.model.arm import AnchorRefinement
from detlab.model.backbones import Backbone
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Assignment, Criterion
from detlab.model.detect import Detect
from detlab.model.heads import Head
from detlab.model.losses import BoxLoss, ClassificationLoss
from detlab.model.matchers import IGNORED, NEGATIVE, Matcher
from detlab.model.necks import Neck, TransferConnection
from detlab.model.samplers import Sampler
from detlab.ranges import Fraction
from detlab.tensors.structures import Batch, Detections, Prediction

STAGE = 0  # number of the ODM in the random draws


class RefineDet(Detector):
    """A single network with a cascade of two steps.

    Args:
        num_classes, backbone, neck: see `Detector`.
        anchors: of the ARM.
        arm: awaits levels and num_anchors.
        connection: the TCBs, awaits levels.
        head: of the ODM, awaits levels, num_anchors, cls_loss, num_classes.
        criterion: of the ODM, awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss, detect: the parts of the ODM.
        negative_filtering: the ARM's background confidence above which an anchor is not a negative of the ODM in
            training, and scores 0 in detection; None to keep all.
        two_step: the ODM matches, encodes and decodes against refined anchors; False: against the original anchors.
        tcb: the ODM reads transferred maps; False: the source maps.
    """

    resize = "warp"
    final: Detect

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: Backbone,
        neck: Callable[..., Neck],
        anchors: AnchorGenerator,
        arm: Callable[..., AnchorRefinement],
        connection: Callable[..., TransferConnection],
        head: Callable[..., Head],
        criterion: Callable[..., Criterion],
        matcher: Matcher,
        sampler: Sampler,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: Detect,
        negative_filtering: Fraction | None = 0.99,
        two_step: bool = True,
        tcb: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, backbone=backbone, neck=neck)
        if negative_filtering is not None and not 0 < negative_filtering <= 1:
            raise ValueError(
                f"model.negative_filtering={negative_filtering} must lie in (0, 1], a background confidence; the "
                f"paper's is 0.99, and null turns it off."
            )
        levels = self.neck.levels
        counts = anchors.num_anchors(levels)
        self.anchors = anchors
        self.arm = arm(levels=levels, num_anchors=counts)
        self.connection = connection(levels=levels) if tcb else None
        read = levels if self.connection is None else self.connection.levels
        self.head = head(levels=read, num_anchors=counts, cls_loss=cls_loss, num_classes=num_classes)
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)
        self.final = detect
        self.negative_filtering, self.two_step = negative_filtering, two_step
        self.seal()

    def features(self, batch: Batch) -> Features:
        """The source maps and the transferred maps."""
        maps = super().features(batch)
        return maps if self.connection is None else maps | self.connection(maps)

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`arm/loss_cls`, `arm/loss_box`, `loss_cls` and `loss_box`."""
        features = self.features(batch) if features is None else features
        anchors, first = self._anchors(batch), once(features, "arm", lambda: self.arm(features))
        sizes = [level.size(batch.canvas) for level in self.neck.levels]
        locations = sum(rows * columns for rows, columns in sizes)
        losses = {f"arm/{k}": v for k, v in self.arm.loss(first, anchors, batch, locations).items()}
        references = self._references(first, anchors)
        assignment = self.criterion.assign(references, batch.truth, self.num_classes)
        if self.negative_filtering is not None:
            assignment = self._without_easy(assignment, first)
        second = once(features, "head", lambda: self.head(features))
        return losses | self.criterion(second, references, assignment, batch.draw_keys, STAGE, locations)

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Refined anchors scored, decoded and suppressed per class (canvas px)."""
        features = self.features(batch) if features is None else features
        first = once(features, "arm", lambda: self.arm(features))
        second = once(features, "head", lambda: self.head(features))
        easy = None if self.negative_filtering is None else self._easy(first)

        def scores(logits: Tensor, images: slice) -> Tensor:
            found = self.criterion.cls_loss.scores(logits)
            return found if easy is None else torch.where(easy[images, :, None], 0, found)

        per = self.anchors.num_anchors(self.neck.levels)
        sizes = [level.size(batch.canvas) for level in self.neck.levels]
        return self.final(
            second.logits,
            second.deltas,
            self._references(first, self._anchors(batch)),
            self.criterion.coder,
            batch.sizes,
            [h * w * n for (h, w), n in zip(sizes, per, strict=True)],
            scores,
        )

    def _anchors(self, batch: Batch) -> Tensor:
        return self.anchors(self.neck.levels, batch.canvas, batch.images.device)

    def _references(self, first: Prediction, anchors: Tensor) -> Tensor:
        """The boxes [1 or B, A, 4] that the ODM's offsets refer to."""
        return self.arm.refine(first, anchors) if self.two_step else anchors

    def _easy(self, first: Prediction) -> Tensor:
        """Anchors that the ARM confidently takes for background, [B, A] bool."""
        assert self.negative_filtering is not None  # checked by the caller
        return self.arm.objectness(first) < 1 - self.negative_filtering

    def _without_easy(self, assignment: Assignment, first: Prediction) -> Assignment:
        """The assignment with easy negatives ignored; matched anchors stay, whatever the ARM's confidence."""
        easy = (assignment.state == NEGATIVE) & self._easy(first)
        return assignment._replace(state=assignment.state.masked_fill(easy, IGNORED))
