"""Box coding against worked numbers."""

import math

import pytest
import torch

from detlab.model.coders import BoxCoder

ANCHOR = torch.tensor([10.0, 20, 50, 100])
TRUTH = torch.tensor([15.0, 30, 65, 90])


def test_offsets_by_hand() -> None:
    # widths 40 and 50, heights 80 and 60, centres (30, 60) and (40, 60)
    expected = [10 / 40, 0, math.log(50 / 40), math.log(60 / 80)]
    torch.testing.assert_close(BoxCoder().encode(ANCHOR, TRUTH), torch.tensor(expected))


def test_weights_multiply_offsets() -> None:
    found = BoxCoder(weights=(10, 10, 5, 5)).encode(ANCHOR, TRUTH)
    torch.testing.assert_close(found, torch.tensor([2.5, 0, 1.115718, -1.438410]), atol=1e-5, rtol=0)


def test_growth_is_clipped_at_1000_over_16() -> None:
    found = BoxCoder().decode(ANCHOR, torch.tensor([0.0, 0, 100, 100]))
    torch.testing.assert_close(found, torch.tensor([-1220.0, -2440, 1280, 2560]), rtol=1e-5, atol=0)


def test_ssd_variances_are_the_weights_10_and_5() -> None:
    prior = torch.tensor([0.4, 0.3, 0.6, 0.7])  # centre (.5, .5), .2 x .4
    x1, y1, x2, y2 = BoxCoder(weights=(10, 10, 5, 5)).decode(prior, torch.tensor([1.0, -1, 0.5, -0.5])).tolist()
    found = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    assert found == pytest.approx((0.52, 0.46, 0.221034, 0.361935), abs=1e-5)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_decode_inverts_encode(weights: tuple) -> None:
    low = torch.rand(50, 2) * 100
    boxes = torch.cat([low, low + 1 + torch.rand(50, 2) * 80], dim=1)
    references = boxes.roll(1, 0)
    coder = BoxCoder(weights=weights, clip=None)
    torch.testing.assert_close(coder.decode(references, coder.encode(references, boxes)), boxes, atol=2e-3, rtol=1e-4)


def test_a_padded_row_gives_finite_numbers() -> None:
    assert BoxCoder().encode(torch.zeros(4), torch.zeros(4)).isfinite().all()


def test_coding_stays_float32_in_half_precision() -> None:
    assert BoxCoder().decode(ANCHOR.bfloat16(), torch.zeros(4).bfloat16()).dtype == torch.float32


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="model.coder.weights"):
        BoxCoder(weights=(1, 1, 0, 1))
