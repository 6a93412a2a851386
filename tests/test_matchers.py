"""Assignment against matrices worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detlab import matchers
from detlab.matchers import IGNORED, NEGATIVE, POSITIVE, IoUMatcher
from detlab.structures import Targets

A = [[0.1, 0.4, 0.6, 0.8, 0.25], [0.2, 0.45, 0.1, 0.3, 0.28]]
B = [[0.1, 0.4, 0.6, 0.8, 0.25], [0.2, 0.2, 0.1, 0.3, 0.28]]


def match(monkeypatch: pytest.MonkeyPatch, matrix: list[list[float]], **options: object) -> list[int]:
    """Matched row of each column; -1 negative, -2 ignored."""
    overlap = torch.tensor(matrix)[None]
    monkeypatch.setattr(matchers, "pairwise_overlap", lambda boxes, anchors, crowd: overlap)
    rows, columns = overlap.shape[1:]
    none = torch.zeros(1, rows, dtype=torch.bool)
    targets = Targets(torch.zeros(1, rows, 4), torch.zeros(1, rows).long(), torch.zeros(1, rows), none, none)
    found = IoUMatcher(**options)(torch.zeros(1, columns, 4), targets)
    names = {NEGATIVE: -1, IGNORED: -2}
    return [names.get(s, i) for s, i in zip(found.state[0].tolist(), found.index[0].tolist(), strict=True)]


@pytest.mark.parametrize(
    ("matrix", "positive", "negative", "force", "expected"),
    [
        (A, 0.7, 0.3, False, [-1, -2, -2, 0, -1]),
        (A, 0.7, 0.3, True, [-1, 1, -2, 0, -1]),
        (B, 0.7, 0.3, False, [-1, -2, -2, 0, -1]),
        (B, 0.7, 0.3, True, [-1, -2, -2, 0, -1]),  # row 1's best anchor prefers row 0
        (B, 0.5, 0.4, True, [-1, -2, 0, 0, -1]),
        ([[0.2, 0.5, 0.5, 0.1]], 0.7, 0.3, True, [-1, 0, 0, -1]),  # a tie makes both positive
        ([[0, 0, 0], [0.1, 0.8, 0.2]], 0.7, 0.3, True, [-1, 1, -1]),  # torchvision: 1 1 1
    ],
)
def test_golden_matrices(
    monkeypatch: pytest.MonkeyPatch, matrix: list, positive: float, negative: float, force: bool, expected: list
) -> None:
    assert match(monkeypatch, matrix, positive=positive, negative=negative, force_best=force) == expected


@pytest.fixture
def anchors() -> Tensor:
    return torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 20], [30, 30, 40, 40], [100, 100, 120, 120]]])


def test_padding_matches_nothing(anchors: Tensor, targets: Callable) -> None:
    found = IoUMatcher(positive=0.5, negative=0.4, force_best=True)(anchors, targets([[[0, 0, 10, 10]], []], [[2], []]))
    assert found.state.tolist() == [[POSITIVE, POSITIVE, NEGATIVE, NEGATIVE], [NEGATIVE] * 4]
    assert found.overlap[0].tolist() == [1, 0.5, 0, 0]
    assert found.overlap[1].tolist() == [0] * 4


def test_a_batch_without_any_box(anchors: Tensor, targets: Callable) -> None:
    found = IoUMatcher(positive=0.5, negative=0.4, force_best=True)(anchors, targets([[], []], [[], []]))
    assert found.state.tolist() == [[NEGATIVE] * 4] * 2


def test_anchors_in_a_crowd_are_ignored_and_never_positive(anchors: Tensor, targets: Callable) -> None:
    truth = targets([[[0, 0, 10, 10], [20, 20, 60, 60]]], [[0, 0]], crowd=[[False, True]])
    found = IoUMatcher(positive=0.5, negative=0.4, force_best=True)(anchors, truth)
    assert found.state.tolist() == [[POSITIVE, POSITIVE, IGNORED, NEGATIVE]]
    as_background = IoUMatcher(positive=0.5, negative=0.4, force_best=True, crowd_overlap=None)(anchors, truth)
    assert as_background.state.tolist() == [[POSITIVE, POSITIVE, NEGATIVE, NEGATIVE]]


def test_parts_bounded_by_memory_give_the_same(
    anchors: Tensor, targets: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = targets([[[0, 0, 10, 10]], [[31, 30, 41, 40]], [[0, 0, 10, 18]]], [[0], [1], [2]])
    matcher = IoUMatcher(positive=0.5, negative=0.4, force_best=True)
    whole = matcher(anchors, truth)
    monkeypatch.setattr(matchers, "LARGEST_MATRIX", 5)
    parts = matcher(anchors, truth)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= negative <= positive <= 1"):
        IoUMatcher(positive=0.3, negative=0.7, force_best=True)
