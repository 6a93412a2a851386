"""Region proposal network: head, loss and proposals on the maps of a neck (Faster R-CNN section 3).

The same module is the whole of the `rpn` family and the first stage of `faster_rcnn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from detlab.model.anchors import AnchorGenerator
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Criterion
from detlab.model.detect import ProposalDetect
from detlab.model.heads import Head
from detlab.model.losses import BoxLoss, ClassificationLoss
from detlab.model.matchers import Matcher
from detlab.model.samplers import Sampler
from detlab.tensors.boxes import within
from detlab.tensors.structures import Batch, Level, Prediction, Proposals

STAGE = 1  # number of this stage in the random draws


class RPN(nn.Module):
    """Scores anchors as object or background and regresses them.

    Args:
        levels: the neck's levels.
        anchors: used by this RPN only; their sizes are dealt over the levels.
        head: awaits levels, num_anchors, cls_loss, num_classes.
        criterion: awaits matcher, sampler, cls_loss, box_loss, coder.
        matcher, sampler, coder, cls_loss, box_loss, detect: the stage's parts.
        drop_crossing: leave anchors that cross the image's border out of the training targets (Faster R-CNN section
            3.3); proposals are made from all anchors in any case. FPN keeps them.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        anchors: AnchorGenerator,
        head: Callable[..., Head],
        criterion: Callable[..., Criterion],
        matcher: Matcher,
        sampler: Sampler,
        coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        detect: ProposalDetect,
        drop_crossing: bool = False,
    ) -> None:
        super().__init__()
        self.drop_crossing = drop_crossing
        self.levels = tuple(levels)
        self.anchors = anchors
        self.head = head(levels=self.levels, num_anchors=anchors.num_anchors(levels), cls_loss=cls_loss, num_classes=1)
        self.criterion = criterion(matcher=matcher, sampler=sampler, cls_loss=cls_loss, box_loss=box_loss, coder=coder)
        self.detect = detect

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Logits [B, A, O] and deltas [B, A, 4] from the neck's maps."""
        return self.head(features)

    def loss(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box` of this stage."""
        anchors = self.anchors(self.levels, batch.canvas, batch.images.device)
        targets = batch.truth.agnostic()
        usable = within(anchors, batch.sizes) if self.drop_crossing else None
        assignment = self.criterion.assign(anchors, targets, num_classes=1, usable=usable)
        return self.criterion(prediction, anchors, assignment, batch.draw_keys, STAGE, locations=self._locations(batch))

    def propose(self, prediction: Prediction, batch: Batch, *, for_training: bool) -> Proposals:
        """Proposals by falling score, without gradient (canvas px)."""
        anchors = self.anchors(self.levels, batch.canvas, batch.images.device)
        scores = self.criterion.cls_loss.scores(prediction.logits.detach())[..., 0]
        counts = [
            _area(level.size(batch.canvas)) * per
            for level, per in zip(self.levels, self.anchors.num_anchors(self.levels), strict=True)
        ]
        return self.detect(
            scores,
            prediction.deltas.detach(),
            anchors,
            self.criterion.coder,
            batch.sizes,
            counts,
            for_training=for_training,
        )

    def _locations(self, batch: Batch) -> int:
        return sum(_area(level.size(batch.canvas)) for level in self.levels)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
