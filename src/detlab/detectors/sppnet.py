"""SPPnet: RoIs max-pooled over a pyramid of grids into vectors of one length (SPPnet, 2014, section 4).

The paper trains only the fully connected layers (model.backbone.frozen_stages=5), then SVMs and box regressors on
cached features. Here the same layers end in softmax and box layers, trained in one stage; conv layers may train, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from torch import Tensor

from detlab.detectors.detector import Features
from detlab.detectors.on_proposals import ProposalDetector
from detlab.detectors.pyramid import rescaled
from detlab.model.samplers import draw
from detlab.ranges import Positive, Size
from detlab.tensors.structures import Batch

SIZE_STAGE = 4  # number of the size's draw in the random draws


class SPPNet(ProposalDetector):
    """Spatial pyramid pooling per RoI and fully connected layers.

    Args:
        train_sizes: factors of the batch's size. Each training batch is resized by one of them, drawn at random: the
            paper's multi-size training alternates 224 and 180 px epoch by epoch (factors [1.0, 0.804]).
        parts: of `ProposalDetector` and `RoIDetector`.
    """

    fits_linear_models = True

    def __init__(self, *, train_sizes: Annotated[Sequence[Positive], Size(1)] = (1.0,), **parts: Any) -> None:
        super().__init__(**parts)
        if not train_sizes or min(train_sizes) <= 0:
            raise ValueError(f"model.train_sizes={list(train_sizes)} needs positive factors; use [1.0] for one size.")
        self.train_sizes = tuple(train_sizes)
        self.seal()

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box`; in training at a random size of `train_sizes`."""
        if features is None and self.training:
            batch = self.resized(batch)
        return super().loss(batch, features)

    def resized(self, batch: Batch) -> Batch:
        """The batch resized by a random factor of `train_sizes`, the same for all its images."""
        if len(self.train_sizes) == 1 and self.train_sizes[0] == 1:
            return batch
        number = int(draw(batch.draw_keys[:1], SIZE_STAGE, 1) * len(self.train_sizes))
        factor = batch.sizes.new_full((len(batch.ids),), 1).float() * self.train_sizes[number]
        return rescaled(batch, factor)
