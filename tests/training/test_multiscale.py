"""Multi-scale training: sizes follow from seed and step alone, boxes go along."""

from __future__ import annotations

import pytest
import torch

from detlab.training.multiscale import MultiScale
from tests.batches import make_batch

SIZES = [320, 416, 608]


def test_sizes_are_a_function_of_seed_and_step() -> None:
    one, other = (MultiScale(sizes=SIZES, every=10) for _ in range(2))
    torch.manual_seed(1)
    first = [one.choice(3, step) for step in range(200)]
    torch.manual_seed(2)
    assert [other.choice(3, step) for step in reversed(range(200))] == first[::-1]  # no state
    assert all(len(set(first[k : k + 10])) == 1 for k in range(0, 200, 10))
    assert set(first) == set(SIZES)
    assert [one.choice(4, step) for step in range(200)] != first


def test_the_last_steps_have_the_largest_size() -> None:
    scale = MultiScale(sizes=SIZES, last=200)
    assert {scale.choice(0, step, 1000) for step in range(800, 1000)} == {608}
    assert {scale.choice(0, step, 1000) for step in range(800)} == set(SIZES)


def test_a_batch_is_resized_whole() -> None:
    batch = make_batch([[[32, 16, 64, 48]]], [[1]], side=(64, 96))._replace(sizes=torch.tensor([[60, 90]]))
    out = MultiScale(sizes=[192])(batch, 0, 0)
    assert out.canvas == (128, 192)
    assert out.sizes.tolist() == [[120, 180]]
    assert out.targets.boxes.tolist() == [[[64, 32, 128, 96]]]
    assert out.targets.area.tolist() == [[4 * 32 * 32]]
    torch.testing.assert_close(out.proposals.boxes, batch.proposals.boxes * 2)
    assert out.images.dtype == torch.uint8
    assert out.ids is batch.ids
    same = MultiScale(sizes=[96])(batch, 0, 0)
    assert same is batch
    half = MultiScale(factors=[0.5])(batch, 0, 0)
    assert half.canvas == (32, 64)  # 48 is not a multiple of 32
    torch.testing.assert_close(half.targets.boxes, torch.tensor([[[64 / 3, 8, 128 / 3, 24]]]))


def test_no_padding_becomes_part_of_the_image() -> None:
    """13 of 416 px are 14 of 448; in float32 13 * (448 / 416) lies above 14 and would be rounded up to 15."""
    batch = make_batch([[]], [[]], side=(32, 416))._replace(sizes=torch.tensor([[32, 13]]))
    assert MultiScale(sizes=[448])(batch, 0, 0).sizes.tolist() == [[32, 14]]


@pytest.mark.parametrize(
    "options", [{}, {"sizes": [320], "factors": [1.0]}, {"sizes": []}, {"factors": [0.0]}, {"sizes": [320], "every": 0}]
)
def test_what_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="multiscale needs positive sizes or factors"):
        MultiScale(**options)
