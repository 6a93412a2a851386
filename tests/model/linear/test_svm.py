"""R-CNN's SVMs against hand-computed and convex optima, and the mining pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detlab.model.linear import NEVER, MinedSVM, NormMeter, without_duplicates
from detlab.model.linear.svm import fit_svm

pytest.importorskip("sklearn", reason="scikit-learn is an optional extra: pip install 'detlab[svm]'")


def objective(w: Tensor, v: Tensor, positives: Tensor, negatives: Tensor, cost: float, weight: float) -> Tensor:
    """What R-CNN minimises, with the bias feature 10."""
    slack = weight * (1 - positives @ w - 10 * v).clamp(min=0).sum() + (1 + negatives @ w + 10 * v).clamp(min=0).sum()
    return (w @ w + v * v) / 2 + cost * slack


def test_a_small_cost_by_hand() -> None:
    """All slacks are active: w = C (2 (3, 0) - (0, 1)), v = C (2 * 10 - 10), bias = 10 v."""
    model = fit_svm(torch.tensor([[3.0, 0]]), torch.tensor([[0.0, 1]]), cost=1e-3, bias=10, positive_weight=2)
    torch.testing.assert_close(model.weight, torch.tensor([0.006, -0.001]), atol=1e-6, rtol=0)
    assert model.bias.item() == pytest.approx(0.1, abs=1e-5)
    assert model(torch.tensor([[1.0, 2.0]])).item() == pytest.approx(0.104, abs=1e-5)


def test_a_separable_pair_has_the_widest_margin() -> None:
    model = fit_svm(torch.tensor([[2.0]]), torch.tensor([[-2.0]]), cost=100, bias=10, positive_weight=2)
    assert model.weight.item() == pytest.approx(0.5, abs=5e-3)
    assert model.bias.item() == pytest.approx(0, abs=5e-3)


def test_the_solution_is_the_convex_optimum() -> None:
    positives, negatives = torch.randn(20, 3) + 0.7, torch.randn(40, 3)
    model = fit_svm(positives, negatives, cost=0.05, bias=10, positive_weight=2)
    best = objective(model.weight, model.bias / 10, positives, negatives, 0.05, 2)
    for _ in range(200):
        w, v = model.weight + 0.02 * torch.randn(3), model.bias / 10 + 0.002 * torch.randn(())
        assert objective(w, v, positives, negatives, 0.05, 2) > best - 1e-4


def test_one_mining_pass_finds_what_all_negatives_would_give() -> None:
    positives, negatives = torch.randn(60, 4) * 5 + 12, torch.randn(3000, 4) * 5 - 4
    whole = fit_svm(positives, negatives, cost=1e-3, bias=10, positive_weight=2)
    svm = MinedSVM(positives, retrain_after=50)
    for image in negatives.split(100):
        svm.add(image)
    mined = svm.finish()
    points = torch.cat([positives, negatives])
    assert len(svm.negatives) < 1500  # easy ones were never kept, or left
    assert (svm.model(svm.negatives) >= -1.2).all()
    torch.testing.assert_close(mined(points), whole(points), atol=0.03, rtol=0)


def test_only_hard_negatives_of_later_images_are_kept() -> None:
    svm = MinedSVM(torch.tensor([[20.0, 0]]), cost=1.0)
    svm.add(torch.tensor([[-20.0, 0]]))
    assert svm.model is not None
    before = len(svm.negatives)
    svm.add(torch.tensor([[-40.0, 0], [15.0, 1]]))  # far beyond the margin, and right beside the positive
    assert len(svm.negatives) == before + 1
    first = svm.model
    last = svm.finish()
    assert not torch.equal(first.weight, last.weight)
    assert last(torch.tensor([[15.0, 1]])).item() < first(torch.tensor([[15.0, 1]])).item()


def test_classes_without_examples_and_images_without_regions() -> None:
    none = MinedSVM(torch.zeros(0, 3))
    none.add(torch.randn(5, 3))
    assert none.finish()(torch.randn(2, 3)).tolist() == [NEVER, NEVER]
    alone = MinedSVM(torch.randn(4, 3))
    alone.add(torch.zeros(0, 3))
    assert alone.finish()(torch.randn(2, 3)).tolist() == [1, 1]


def test_features_are_scaled_to_a_mean_norm_of_twenty() -> None:
    meter = NormMeter()
    assert meter.scale == 1
    meter.add(torch.tensor([[3.0, 4.0], [0.0, 15.0]]))
    meter.add(torch.zeros(0, 2))
    assert meter.scale == pytest.approx(2.0)  # mean norm (5 + 15) / 2


def test_near_duplicates_leave() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [5, 0, 15, 10], [0, 1, 10, 10]])
    assert without_duplicates(boxes, 0.7).tolist() == [0, 2]  # IoU 0.9 twice, and 1/3
    assert without_duplicates(boxes, 0.95).tolist() == [0, 1, 2, 3]
    assert without_duplicates(torch.zeros(0, 4), 0.7).tolist() == []
