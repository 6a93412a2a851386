"""Pairs and greedy matching on flat arrays."""

from __future__ import annotations

import numpy as np
import pytest

from detlab.metrics import matching
from detlab.metrics.matching import match, pairs_of, place_in_group


def test_pairs_are_those_of_a_group_and_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (70, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (70, 2))], axis=1)
    group = rng.integers(0, 6, 70)
    group[group == 2] = 9  # detections alone
    crowd = rng.random(20) < 0.2
    arguments = (group[20:], boxes[20:], np.where(group[:20] == 9, 7, group[:20]), boxes[:20], crowd)
    whole = pairs_of(*arguments, least=0.1)
    found = set(zip(whole.det.tolist(), whole.truth.tolist(), strict=True))
    for d in range(50):
        for t in range(20):
            a, b = boxes[20 + d], boxes[t]
            w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            inter = max(w, 0) * max(h, 0)
            own = (a[2:] - a[:2]).prod()
            iou = inter / (own if crowd[t] else own + (b[2:] - b[:2]).prod() - inter)
            assert ((d, t) in found) == (arguments[0][d] == arguments[2][t] and iou >= 0.1)
    monkeypatch.setattr(matching, "MOST_PAIRS", 7)
    for one, other in zip(pairs_of(*arguments, least=0.1), whole, strict=True):
        assert np.array_equal(one, other)


def test_no_detections_and_no_boxes() -> None:
    none, boxes = np.zeros(0, np.int64), np.zeros((0, 4))
    one, box = np.zeros(1, np.int64), np.array([[0.0, 0, 5, 5]])
    for dets, truths in (((none, boxes), (one, box)), ((one, box), (none, boxes)), ((none, boxes), (none, boxes))):
        pairs = pairs_of(*dets, *truths, np.zeros(len(truths[0]), bool))
        assert [len(field) for field in pairs] == [0, 0, 0]


def test_the_better_scored_goes_first_and_takes_the_best_free_box() -> None:
    """Two detections want box 0 (IoU .8 and .9); the better-scored has it, the other falls back on box 1 (.6)."""
    pairs = matching.Pairs(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0.8, 0.9, 0.6]))
    none = np.zeros(2, bool)
    order = place_in_group(np.zeros(2, int), np.array([0.9, 0.5]))
    found = match(pairs, order, none, none, np.array([0.5, 0.7, 0.85]))
    assert found.truth.tolist() == [[0, 0, -1], [1, -1, 0]]
    crowd = np.array([True, False])  # shared by all, and taken only where no box that counts is free
    shared = match(pairs, order, crowd, crowd, np.array([0.5, 0.7]))
    assert shared.truth.tolist() == [[0, 0], [1, 0]]
    assert shared.ignored.tolist() == [[True, True], [False, True]]
