"""Ridge regression of boxes, one model per class (R-CNN appendix C; `rcnn_train_bbox_regressor.m`).

Targets are centred and whitened, a constant feature is appended, and each coordinate is solved by itself in closed
form: (X'X + lambda I) b = X'y by Cholesky. The constant's weight is regularised like the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detlab.model.linear.svm import LinearModel

WHITENING = 0.001  # added to the covariance's eigenvalues
ROWS = 4096  # regions per block of the Gram matrix, so that the float64 copy stays small


class BoxRidge:
    """Fits the offsets (tx, ty, tw, th) of one class.

    Args:
        penalty: lambda; R-CNN 1000, SPPnet's released code 4000.
        scale: of the features; the model is for scaled ones.
    """

    def __init__(self, *, penalty: float = 1000.0, scale: float = 1.0) -> None:
        if penalty <= 0:
            raise ValueError(
                f"training.ridge_lambda={penalty} must be positive: fewer regions than features are usual."
            )
        self.penalty, self.scale = penalty, scale

    def fit(self, features: Tensor, targets: Tensor) -> LinearModel:
        """Weights [4, d] and biases [4] from features [n, d] and offsets [n, 4]; zeros where n is 0."""
        count, width = features.shape
        if count == 0:
            return LinearModel(features.new_zeros(4, width).float(), torch.zeros(4))
        targets = targets.double()
        mean = targets.mean(0)
        whiten, back = whitening(targets - mean)
        gram = self.penalty * torch.eye(width + 1, dtype=torch.float64)
        moment = torch.zeros(width + 1, 4, dtype=torch.float64)
        for x, y in zip(features.split(ROWS), (targets - mean).split(ROWS), strict=True):
            x = torch.cat([self.scale * x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
            gram += x.T @ x
            moment += x.T @ (y @ whiten)
        solved = torch.cholesky_solve(moment, torch.linalg.cholesky(gram)) @ back  # [d + 1, 4]
        return LinearModel(solved[:-1].T.float().contiguous(), (solved[-1] + mean).float())


def whitening(centred: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric [4, 4] matrix that makes the covariance of centred rows [n, 4] the identity, and its inverse."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    root = (values.clamp(min=0) + WHITENING).sqrt()
    return vectors / root @ vectors.T, vectors * root @ vectors.T
