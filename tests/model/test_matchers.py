"""Assignment against matrices worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detlab.model import matchers
from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE, BipartiteMatcher, IoUMatcher
from detlab.tensors.boxes import pairwise_overlap
from detlab.tensors.structures import Targets

A = [[0.1, 0.4, 0.6, 0.8, 0.25], [0.2, 0.45, 0.1, 0.3, 0.28]]
B = [[0.1, 0.4, 0.6, 0.8, 0.25], [0.2, 0.2, 0.1, 0.3, 0.28]]


def match(
    monkeypatch: pytest.MonkeyPatch, matrix: list[list[float]], kind: type = IoUMatcher, **options: object
) -> list[int]:
    """Matched row of each column; -1 negative, -2 ignored."""
    overlap = torch.tensor(matrix)[None]
    monkeypatch.setattr(matchers, "pairwise_overlap", lambda boxes, anchors, crowd: overlap)
    rows, columns = overlap.shape[1:]
    none = torch.zeros(1, rows, dtype=torch.bool)
    targets = Targets(torch.zeros(1, rows, 4), torch.zeros(1, rows).long(), torch.zeros(1, rows), none, none)
    found = kind(**options)(torch.zeros(1, columns, 4), targets)
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


@pytest.mark.parametrize("fixed", [False, True], ids=["host", "fixed_shapes"])
@pytest.mark.parametrize("matcher", [IoUMatcher(positive=0.5, negative=0.4, force_best=True), BipartiteMatcher()])
def test_no_anchor_matches_nothing(
    matcher: IoUMatcher, fixed: bool, targets: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matchers, "fixed_shapes", lambda x: fixed)
    found = matcher(torch.zeros(1, 0, 4), targets([[[0, 0, 10, 10]], []], [[0], []]))
    assert [field.shape for field in found] == [(2, 0)] * 3


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


def test_a_range_of_box_counts_shares_one_size_of_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled graph is made for one size of part, so the size must not change with every number of boxes."""
    monkeypatch.setattr(matchers, "LARGEST_MATRIX", 24)
    assert [matchers.images_at_once(8, pairs) for pairs in (0, 3, 4, 6, 7, 12, 13, 99)] == [8, 8, 4, 4, 2, 2, 1, 1]
    assert matchers.images_at_once(5, 8) == 3


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= negative <= positive <= 1"):
        IoUMatcher(positive=0.3, negative=0.7, force_best=True)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (A, [-1, 1, 0, 0, -1]),
        (B, [-1, -1, 0, 0, 1]),  # both rows prefer column 3; amdegroot and torchvision: -1 -1 0 1 -1
        ([[0, 0, 0], [0.1, 0.8, 0.2]], [-1, 1, -1]),  # a box that overlaps nothing takes nothing
        ([[0.2, 0.3]], [-1, 0]),
        ([[0.9, 0.8], [0.7, 0.6], [0.65, 0.55]], [0, 1]),  # more boxes than anchors
        ([[0.6, 0.7, 0], [0.65, 0.8, 0], [0.5, 0.75, 0.1]], [0, 1, 2]),  # one column that all want, one by one
    ],
)
def test_bipartite_matrices(monkeypatch: pytest.MonkeyPatch, matrix: list, expected: list) -> None:
    assert match(monkeypatch, matrix, kind=BipartiteMatcher) == expected


def greedy(iou: Tensor) -> dict[int, int]:
    """Caffe's loop in plain words: anchor -> box."""
    iou, taken = iou.clone(), {}
    while iou.numel() and iou.max() > 1e-6:
        box, anchor = divmod(int(iou.argmax()), iou.shape[1])
        taken[anchor] = box
        iou[box], iou[:, anchor] = 0, 0
    return taken


@pytest.mark.parametrize("fixed", [False, True], ids=["host", "fixed_shapes"])
def test_bipartite_matching_of_a_batch_is_the_plain_loops(
    targets: Callable, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crowded images of different numbers of boxes, with one set of anchors and with one per image."""
    monkeypatch.setattr(matchers, "fixed_shapes", lambda x: fixed)
    g = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 60, 2, generator=g) * 40
    shared = torch.cat([corners, corners + 5 + torch.rand(3, 60, 2, generator=g) * 30], dim=2)
    truth = targets([shared[0, :25].add(1.3).tolist(), [], shared[2, :9].sub(0.7).tolist()], [[0] * 25, [], [1] * 9])
    for anchors, largest in ((shared, 2**26), (shared[:1], 2**26), (shared, 1)):  # the last one image by image
        monkeypatch.setattr(matchers, "LARGEST_MATRIX", largest)
        found = BipartiteMatcher()(anchors, truth)
        iou = pairwise_overlap(truth.boxes, anchors)
        for i, number in enumerate((25, 0, 9)):
            forced = greedy(iou[i, :number])
            assert len(forced) == number
            own = iou[i, :number].max(0) if number else None
            for a in range(60):
                positive = found.state[i, a] == POSITIVE
                if a in forced:
                    assert positive
                    assert found.index[i, a] == forced[a]
                else:
                    assert positive == (number > 0 and own.values[a] >= 0.5)
                    assert not positive or found.index[i, a] == own.indices[a]


def test_bipartite_matching_knows_crowds(anchors: Tensor, targets: Callable) -> None:
    truth = targets([[[0, 0, 10, 10], [20, 20, 60, 60]]], [[0, 0]], crowd=[[False, True]])
    assert BipartiteMatcher()(anchors, truth).state.tolist() == [[POSITIVE, POSITIVE, IGNORED, NEGATIVE]]


@pytest.mark.parametrize("fixed", [False, True], ids=["host", "fixed_shapes"])
def test_bipartite_ties_do_not_depend_on_the_other_images(
    targets: Callable, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box inside 50 equal anchors takes the first of them, also beside an image of many boxes."""
    monkeypatch.setattr(matchers, "fixed_shapes", lambda x: fixed)
    anchors = torch.tensor([[[0.0, 0, 40, 40]]]).repeat(1, 50, 1)
    anchors = torch.cat([torch.rand(1, 30, 4, generator=torch.Generator().manual_seed(0)) + 90, anchors], dim=1)
    for more in (1, 9, 40):
        truth = targets([[[10, 10, 20, 20]], [[i, 50, i + 9, 59] for i in range(more)]], [[0], [0] * more])
        found = BipartiteMatcher()(anchors, truth)
        assert (found.state[0] == POSITIVE).nonzero().flatten().tolist() == [30]


def test_boxes_that_choose_at_once_are_paired_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with ties, without overlap, with more boxes than anchors, and where each pair waits for the last one."""
    monkeypatch.setattr(matchers, "LOOK_EVERY", 4)
    g = torch.Generator().manual_seed(1)
    waiting = torch.zeros(40, 40)  # box i prefers anchor i - 1, which box i - 1 takes
    waiting.diagonal().copy_(torch.linspace(0.9, 0.1, 40))
    waiting.diagonal(-1).copy_((waiting.diagonal()[1:] + waiting.diagonal()[:-1]) / 2)
    cases = [waiting[None]]
    for boxes, anchors in ((30, 40), (40, 30), (1, 5), (7, 1)):
        rough = (torch.rand(3, boxes, anchors, generator=g) * 8).floor() / 8  # many ties, an eighth without overlap
        cases += [rough, torch.rand(3, boxes, anchors, generator=g)]
    for iou in cases:
        found = matchers.greedy_pairs(matchers.best_choices(iou), iou.shape[2])
        for own, matrix in zip(found, iou, strict=True):
            taken = greedy(matrix)
            assert own.tolist() == [taken.get(a, -1) for a in range(matrix.shape[1])]


def test_the_number_of_boxes_does_not_multiply_the_operations() -> None:
    """500 boxes took 17 operations each; now 6 a round, and 128 rounds suffice but for long chains."""
    iou = torch.rand(2, 500, 600, generator=torch.Generator().manual_seed(0))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        matchers.greedy_pairs(matchers.best_choices(iou), 600)
    rounds = next(e.count for e in profiled.key_averages() if e.key == "aten::scatter_reduce")
    assert rounds == matchers.LOOK_EVERY
