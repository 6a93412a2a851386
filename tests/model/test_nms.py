"""NMS on a CPU and on a GPU keep the same boxes, those of torchvision's operator on each group by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from detlab.model import nms as suppression
from detlab.model.nms import first_kept, first_kept_at_once, kept, kept_at_once
from detlab.tensors.structures import PADDING


def scene(count: int, groups: int, seed: int, spread: float = 200.0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on whole pixels, which meet the threshold exactly, with tied scores."""
    g = torch.Generator().manual_seed(seed)
    low = (torch.rand(count, 2, generator=g) * spread).round()
    size = (torch.rand(count, 2, generator=g) * 40 + 2).round()
    scores = (torch.rand(count, generator=g) * 100).round() / 100 + 0.01
    return torch.cat([low, low + size], 1), scores, torch.randint(0, groups, (count,), generator=g)


def by_group(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    """torchvision's operator on each group."""
    found = []
    for group in groups.unique():
        rows = (groups == group).nonzero()[:, 0]
        found += rows[nms(boxes[rows], scores[rows], threshold)].tolist()
    return sorted(found, key=lambda i: (-float(scores[i]), i))


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5, 0.6, 0.7])
def test_groups_are_suppressed_one_by_one(threshold: float) -> None:
    for seed, (count, groups) in enumerate([(0, 1), (1, 1), (300, 1), (300, 7), (400, 300)]):
        given = scene(count, groups, seed)
        assert kept(*given, threshold).tolist() == by_group(*given, threshold)


def test_coordinates_are_not_rounded() -> None:
    """Two boxes of class 79 with an IoU just below the threshold: moved by 79 canvases, they overlap more."""
    wide = torch.tensor([[0.0, 0, 1344, 800], [10, 10, 20, 20], [10.003, 10, 20.003, 20]])
    labels, scores = torch.tensor([0, 79, 79]), torch.tensor([0.9, 0.8, 0.7])
    iou = 9.997 / 10.003
    assert kept(wide, scores, labels, iou + 1e-5).tolist() == [0, 1, 2]
    assert batched_nms(wide, scores, labels, iou + 1e-5).tolist() == [0, 1]


def together(scenes: list[tuple[Tensor, Tensor, Tensor]], threshold: float, most: int) -> tuple[list[list[int]], int]:
    """`first_kept_at_once` over a batch, and how often it asked for boxes."""
    boxes, scores, groups = (torch.stack(field) for field in zip(*scenes, strict=True))
    asked = []

    def boxes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(rows.shape[1])
        return boxes.gather(1, rows[..., None].expand(-1, -1, 4)), torch.ones_like(rows, dtype=torch.bool)

    rows = first_kept_at_once(scores, groups, boxes_of, threshold, most)
    count = scores.shape[1]
    assert all((a < count) or (b == count) for row in rows.tolist() for a, b in pairwise(row))  # empty slots come last
    return [[i for i in row if i < count] for row in rows.tolist()], len(asked)


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5, 0.6, 0.7])
@pytest.mark.parametrize("most", [3, 25, 400])
def test_all_images_at_once_are_equal(threshold: float, most: int) -> None:
    scenes = [scene(300, groups, seed) for seed, groups in enumerate([1, 5, 80])]
    scenes[1] = scenes[1][0], scenes[1][1].masked_fill(scenes[1][1] < 0.5, PADDING), scenes[1][2]  # half is not usable
    found, _ = together(scenes, threshold, most)
    for rows, (boxes, scores, groups) in zip(found, scenes, strict=True):
        use = (scores > PADDING).nonzero()[:, 0]
        expected = use[by_group(boxes[use], scores[use], groups[use], threshold)]
        assert rows == expected[:most].tolist()
        assert rows == use[first_kept(boxes[use], scores[use], groups[use], threshold, most)].tolist()


def test_the_next_candidates_follow_where_the_best_keep_too_few() -> None:
    """The best 300 of 600 are one object: only the rest holds others."""
    boxes, scores, groups = scene(600, 2, 4)
    scores = torch.linspace(1, 0.1, 600)
    crowded = boxes.clone()
    crowded[:300] = torch.tensor([50.0, 50, 90, 90]) + torch.rand(300, 1, generator=torch.Generator().manual_seed(1))
    easy, turns = together([(boxes, scores, groups)], 0.5, 10)
    assert turns == 1
    assert easy == [by_group(boxes, scores, groups, 0.5)[:10]]
    hard, turns = together([(boxes, scores, groups), (crowded, scores, groups)], 0.5, 10)
    assert turns > 3
    assert hard == [easy[0], by_group(crowded, scores, groups, 0.5)[:10]]


def chain(count: int) -> Tensor:
    """Each box overlaps the next by 0.6 and no other by 0.5: NMS at .5 keeps every second one."""
    left = torch.arange(count) * 2.5
    return torch.stack([left, torch.zeros(count), left + 10, torch.full((count,), 10.0)], 1)


def test_a_chain_longer_than_the_rounds_is_followed_to_its_end() -> None:
    boxes, scores = chain(100), torch.linspace(1, 0.1, 100)
    found, _ = together([(boxes, scores, torch.zeros(100, dtype=torch.int64))], 0.5, 80)
    assert found == [list(range(0, 100, 2))]
    assert kept_at_once(boxes[None], torch.ones(1, 100, dtype=torch.bool), [100], 0.5)[0].nonzero()[:, 0].tolist() == (
        list(range(0, 100, 2))
    )


@pytest.mark.parametrize("pairs", [1, 2 * 2 * 40**2, 2**26])  # one level at a time, two, all
@pytest.mark.parametrize("block", [7, 2048])
def test_levels_at_once_are_equal(block: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "BLOCK", block)
    monkeypatch.setattr(suppression, "PAIRS", pairs)
    widths, count = [40, 11, 1], 52
    level = torch.repeat_interleave(torch.arange(3), torch.tensor(widths))
    boxes = torch.stack([scene(count, 1, seed, 30)[0] for seed in (1, 2)])
    usable = torch.rand(2, count, generator=torch.Generator().manual_seed(0)) < 0.8
    found = kept_at_once(boxes, usable, widths, 0.6)
    scores = torch.arange(count, 0, -1).float()
    for own, use, alive in zip(boxes, usable, found, strict=True):
        rows = use.nonzero()[:, 0]
        assert alive.nonzero()[:, 0].tolist() == rows[by_group(own[rows], scores[rows], level[rows], 0.6)].tolist()
