"""R-CNN: every proposal is cropped, warped and sent through the network on its own (R-CNN, 2014).

The paper fine-tunes with a softmax, then fits SVMs and box regressors to cached features. Here the network ends in the
softmax and box layers of Fast R-CNN, trained in one stage (training=svm fits the SVMs afterwards).
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from detlab.detectors.detector import Features
from detlab.detectors.on_proposals import ProposalDetector
from detlab.model.pools import WarpedCrop
from detlab.ranges import Range
from detlab.tensors.structures import Batch

IMAGE = "image"  # name of the one "map" that RoIs are read from


class RCNN(ProposalDetector):
    """Runs the whole network on every RoI; its pool is `detlab.model.pools.WarpedCrop`.

    Args:
        chunk: crops per forward pass where no gradient is needed.
        parts: of `ProposalDetector` and `RoIDetector`.
    """

    reads = "crops"
    fits_linear_models = True

    def __init__(self, *, chunk: Annotated[int, Range(1, 10_000)] = 256, **parts: Any) -> None:
        super().__init__(**parts)
        if chunk < 1:
            raise ValueError(f"model.chunk={chunk} must be at least 1.")
        self.chunk = chunk
        self._check_head()
        self.seal()

    def features(self, batch: Batch) -> Features:
        """The normalised images [B, 3, H, W], from which crops are taken."""
        return {IMAGE: self.backbone.normalize(batch.images, batch.sizes)}

    def describe(self, features: Features, rois: Tensor) -> Tensor:
        """Features [N, F] of RoIs [N, 5] (batch index, x1, y1, x2, y2; canvas px), by chunks if without gradient."""
        if torch.is_grad_enabled() or len(rois) <= self.chunk:
            return self._describe(features[IMAGE], rois)
        return torch.cat([self._describe(features[IMAGE], part) for part in rois.split(self.chunk)])

    @property
    def has_batch_norm(self) -> bool:
        """Whether padded RoIs would leak into batch statistics, here of the whole network."""
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
        return any(isinstance(module, kinds) for module in self.modules())

    @property
    def pool(self) -> WarpedCrop:
        """The pool, which cuts the crops and pools their maps."""
        pool = self.head.pool
        if not isinstance(pool, WarpedCrop):
            raise ValueError(
                f"model/pool gives a {type(pool).__name__}, but R-CNN cuts its RoIs from the image; use "
                f"model/pool=warp, or a subclass of detlab.model.pools.WarpedCrop."
            )
        return pool

    def _describe(self, images: Tensor, rois: Tensor) -> Tensor:
        maps = self.neck(self.backbone(self.pool.crop(images, rois)))
        return self.head.describe(maps, rois)

    def _check_head(self) -> None:
        """Refuse a crop that is too small for a body of fixed input, such as VGG-16's fc6."""
        entry = next((m for m in self.head.body.children() if not isinstance(m, nn.Flatten)), None)
        (level,) = self.pooled_levels()
        given = level.channels * self.pool.bins
        if isinstance(entry, nn.Linear) and entry.in_features != given:
            raise ValueError(
                f"model.pool.crop={self.pool.crop_side} gives a map of {self.pool.size} x {self.pool.size}, too small "
                f"for the backbone's fully connected layers; use model.pool.crop=224, or model/head=fc."
            )
