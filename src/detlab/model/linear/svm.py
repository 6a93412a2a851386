"""Linear SVM of one class against the rest, with one pass of hard-negative mining (R-CNN section 2.3, appendix B).

n regions, d features. Constants are from R-CNN's `rcnn_train.m` and `rcnn_scale_features.m`; the solver is
liblinear's dual coordinate descent (its solver type 3, as R-CNN's), through scikit-learn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

TARGET_NORM = 20.0  # features are scaled to this mean norm, so that one C suits every network
NEVER = -100.0  # margin of a class that has no example to learn from


class LinearModel(NamedTuple):
    """margin or offset = weight . x + bias."""

    weight: Tensor  # [d] for one output, [m, d] for m
    bias: Tensor  # [] or [m]

    def __call__(self, features: Tensor) -> Tensor:
        """[n, d] -> [n] or [n, m]."""
        return features @ self.weight.mT + self.bias if self.weight.dim() > 1 else features @ self.weight + self.bias


class NormMeter:
    """Running mean of the features' Euclidean norm, and the scale that brings it to TARGET_NORM."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, features: Tensor) -> None:
        """Count features [n, d]."""
        self.total += float(features.double().norm(dim=1).sum())
        self.count += len(features)

    @property
    def scale(self) -> float:
        """Factor of the features; 1 if all are zero or there are none."""
        return TARGET_NORM * self.count / self.total if self.total > 0 else 1.0


class MinedSVM:
    """The SVM of one class. It takes the negatives of one image at a time and keeps the hard ones.

    The first image's negatives are all taken. Later images give those that the current model puts above
    `hard_margin`; after `retrain_after` new ones the model is fitted again, and negatives that have become easy
    (below `evict_margin`) leave the cache.

    Args:
        positives: [p, d] features, scaled; ground truth only.
        cost: C.
        bias: constant feature whose weight, regularised like the others, is the bias (liblinear's -B).
        positive_weight: factor of C for positives.
        hard_margin, evict_margin: see above; -1 is the margin of a negative without loss.
        retrain_after: number of new negatives after which the model is fitted again.
        seed: of the solver's random order.
    """

    def __init__(
        self,
        positives: Tensor,
        *,
        cost: float = 1e-3,
        bias: float = 10.0,
        positive_weight: float = 2.0,
        hard_margin: float = -1.0001,
        evict_margin: float = -1.2,
        retrain_after: int = 2000,
        seed: int = 0,
    ) -> None:
        self.positives = positives.float()
        self.cost, self.bias, self.positive_weight = cost, bias, positive_weight
        self.hard_margin, self.evict_margin, self.retrain_after = hard_margin, evict_margin, retrain_after
        self.seed = seed
        self.negatives = self.positives.new_zeros(0, self.positives.shape[1])
        self.model: LinearModel | None = None
        self._added = 0

    def add(self, negatives: Tensor) -> None:
        """Take the hard ones of an image's negatives [n, d], scaled; fit when enough are new."""
        if not len(self.positives) or not len(negatives):
            return
        negatives = negatives.float()
        if self.model is not None:
            negatives = negatives[self.model(negatives) > self.hard_margin]
        self.negatives = torch.cat([self.negatives, negatives])
        self._added += len(negatives)
        if self.model is None or self._added > self.retrain_after:
            self._fit()

    def finish(self) -> LinearModel:
        """The model after the last image.

        Without positives it answers NEVER; without negatives 1, the margin of a positive without loss.
        """
        if self._added:
            self._fit()
        if self.model is not None:
            return self.model
        margin = 1.0 if len(self.positives) else NEVER
        return LinearModel(self.positives.new_zeros(self.positives.shape[1]), torch.tensor(margin))

    def _fit(self) -> None:
        self.model = fit_svm(
            self.positives,
            self.negatives,
            cost=self.cost,
            bias=self.bias,
            positive_weight=self.positive_weight,
            seed=self.seed,
        )
        self.negatives = self.negatives[self.model(self.negatives) >= self.evict_margin]
        self._added = 0


def fit_svm(
    positives: Tensor, negatives: Tensor, *, cost: float, bias: float, positive_weight: float, seed: int = 0
) -> LinearModel:
    """The linear SVM with hinge loss of positives [p, d] against negatives [n, d], both not empty.

    Minimises 1/2 (|w|^2 + v^2) + C sum_i c_i max(0, 1 - y_i (w . x_i + bias v)), c_i = positive_weight for
    positives and 1 for negatives; the model's bias is bias * v.
    """
    from sklearn.svm import LinearSVC

    solver = LinearSVC(
        loss="hinge",
        dual=True,
        C=cost,
        intercept_scaling=bias,
        class_weight={1: positive_weight},
        tol=1e-3,
        max_iter=10_000,
        random_state=seed,
    )
    labels = [1] * len(positives) + [0] * len(negatives)
    solver.fit(torch.cat([positives, negatives]).double().numpy(), labels)
    return LinearModel(torch.from_numpy(solver.coef_[0]).float(), torch.tensor(float(solver.intercept_[0])))


def without_duplicates(boxes: Tensor, iou: float) -> Tensor:
    """Indices, ascending, of the boxes [n, 4] (px, xyxy) whose IoU with every earlier kept box is at most `iou`.

    SPPnet section 4.1: a negative is left out where it overlaps another by more than 70 %.
    """
    order = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    return nms(boxes.float(), order, iou).sort().values
