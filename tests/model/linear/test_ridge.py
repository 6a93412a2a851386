"""R-CNN's box regression against closed forms and its own definition."""

from __future__ import annotations

import pytest
import torch

from detlab.model.linear import BoxRidge
from detlab.model.linear.ridge import WHITENING, whitening


def test_one_feature_by_hand() -> None:
    """Targets of mean 0 whose columns do not mix: b = X'y / (X'X + lambda), as whitening cancels.

    x = (1, 2, -1, -2), constant 1: X'X = diag(10, 4); tx = (1, 2, -1, -2): X'y = 10, so b = 10 / (10 + 5).
    """
    x = torch.tensor([[1.0], [2], [-1], [-2]])
    y = torch.cat([x, torch.zeros(4, 3)], dim=1)
    model = BoxRidge(penalty=5).fit(x, y)
    torch.testing.assert_close(model.weight[:, 0], torch.tensor([2 / 3, 0, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.bias, torch.zeros(4), atol=1e-5, rtol=0)


def test_the_mean_is_not_regularised_away() -> None:
    model = BoxRidge(penalty=1000).fit(torch.randn(50, 6), torch.tensor([[0.1, -0.2, 0.3, 0.4]]).repeat(50, 1))
    torch.testing.assert_close(model(torch.randn(3, 6)), torch.tensor([[0.1, -0.2, 0.3, 0.4]]).repeat(3, 1))


@pytest.mark.parametrize("count", [40, 9000])  # below the width, and over several blocks
def test_the_normal_equations_hold_in_whitened_targets(count: int) -> None:
    x, mixing = torch.randn(count, 60), torch.randn(4, 4)
    y = (x[:, :4] + 0.3 * torch.randn(count, 4)) @ mixing + 0.5
    model = BoxRidge(penalty=30).fit(x, y)
    centred = (y - y.mean(0)).double()
    whiten, back = whitening(centred)
    torch.testing.assert_close(whiten @ back, torch.eye(4, dtype=torch.float64))
    b = torch.cat([model.weight.T, (model.bias - y.mean(0))[None]]).double() @ whiten  # [61, 4]
    ones = torch.cat([x, torch.ones(count, 1)], dim=1).double()
    residual = ones.T @ (centred @ whiten - ones @ b) - 30 * b
    assert residual.abs().max() < 1e-5 * (ones.T @ ones).diagonal().max()


def test_whitened_targets_have_unit_covariance() -> None:
    y = torch.randn(5000, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) * 10
    y = y - y.mean(0)
    white = y @ whitening(y)[0]
    torch.testing.assert_close(white.T @ white / len(y), torch.eye(4, dtype=torch.float64), atol=5 * WHITENING, rtol=0)


def test_no_pairs_give_no_change() -> None:
    model = BoxRidge().fit(torch.zeros(0, 7), torch.zeros(0, 4))
    assert model(torch.randn(2, 7)).tolist() == [[0] * 4] * 2
    with pytest.raises(ValueError, match="training.ridge_lambda=0 must be positive"):
        BoxRidge(penalty=0)
