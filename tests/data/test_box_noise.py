"""Wrong labels of the generated pictures: how many, where, and that they are the training boxes' alone."""

from __future__ import annotations

import numpy as np
import pytest

from detlab.data.audit import AuditReport
from detlab.data.formats.shapes import Shapes
from detlab.errors import DataError


def boxes(split: str, noise: float) -> np.ndarray:
    source = Shapes(counts={"train": 200, "val": 50}, side=64, sizes=(14, 40), box_noise=noise)
    _, splits = source.read(AuditReport())
    return np.concatenate([item.boxes for item in splits[split]])


def test_a_share_of_the_training_boxes_is_moved_within_the_picture() -> None:
    true, noisy = boxes("train", 0.0), boxes("train", 0.3)
    moved = (true != noisy).any(axis=1)
    assert 0.24 < moved.mean() < 0.33  # a few land where they were
    assert (noisy[:, :2] >= 0).all()
    assert (noisy[:, 2:] <= 64).all()
    assert (noisy[:, 2:] > noisy[:, :2]).all()
    sides = (noisy[moved, 2:] - noisy[moved, :2]) / (true[moved, 2:] - true[moved, :2])
    assert 0.05 < sides.min() < 0.7
    assert 1.3 < sides.max() < 1.6
    assert np.array_equal(noisy, boxes("train", 0.3))
    assert np.array_equal(boxes("val", 0.0), boxes("val", 0.9))


def test_a_share_is_from_0_to_1() -> None:
    with pytest.raises(DataError, match="data.box_noise=1.5"):
        Shapes(counts={"train": 1}, box_noise=1.5)
