"""RefineDet's anchor refinement module: object or background, and better anchors (RefineDet sections 3.1 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.heads import Head
from detlab.model.losses import BoxLoss, ClassificationLoss
from detlab.model.matchers import Matcher
from detlab.model.samplers import Sampler
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.structures import Batch, Level, Prediction

STAGE = 4  # number of this stage in the random draws


class AnchorRefinement(nn.Module):
    """The first of two stages; the second stage uses its boxes and its objectness without gradient.

    Args:
        levels: the source maps.
        num_anchors: anchors per location of each level.
        head: awaits levels, num_anchors, cls_loss, num_classes.
        criterion: awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss: the stage's parts.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_anchors: Sequence[int],
        head: Callable[..., Head],
        criterion: Callable[..., Criterion],
        matcher: Matcher,
        sampler: Sampler,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
    ) -> None:
        super().__init__()
        self.head = head(levels=levels, num_anchors=num_anchors, cls_loss=cls_loss, num_classes=1)
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Logits [B, A, O] and deltas [B, A, 4] from the source maps."""
        return self.head(features)

    def loss(self, prediction: Prediction, anchors: Tensor, batch: Batch, locations: int) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box` of this stage, with all classes merged into one; anchors [1, A, 4]."""
        assignment = self.criterion.assign(anchors, batch.truth.agnostic(), num_classes=1)
        return self.criterion(prediction, anchors, assignment, batch.draw_keys, STAGE, locations)

    @torch.no_grad()
    def refine(self, prediction: Prediction, anchors: Tensor) -> Tensor:
        """The anchors [1, A, 4] moved by the predicted offsets: [B, A, 4] px, xyxy."""
        return self.criterion.coder.decode(anchors, prediction.deltas)

    @torch.no_grad()
    def objectness(self, prediction: Prediction) -> Tensor:
        """Probability of each anchor to hold an object, [B, A]."""
        return self.criterion.cls_loss.scores(at_least_float32(prediction.logits))[..., 0]
