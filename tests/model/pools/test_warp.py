"""Warped crops: context, padding with the mean, and the map that reaches the head."""

import pytest
import torch

from detlab.model.pools import WarpedCrop
from detlab.tensors.structures import Level

LEVELS = [Level("C4", 8, 16)]


def test_the_roi_lies_inside_its_context() -> None:
    """A RoI of 32 x 24 px warped to 64 px with 8 px of context: its own pixels fill 48 x 48 in the middle."""
    image = torch.zeros(1, 3, 100, 120)
    image[:, :, 30:54, 40:72] = 1
    crop = WarpedCrop(levels=LEVELS, size=14, crop=64, context=8).crop(image, torch.tensor([[0, 40.0, 30, 72, 54]]))
    assert crop.shape == (1, 3, 64, 64)
    assert crop[:, :, 9:55, 9:55].min() == 1
    assert crop[:, :, :7].max() == crop[:, :, 57:].max() == crop[:, :, :, :7].max() == 0


def test_beyond_the_image_lies_the_mean() -> None:
    image = torch.ones(1, 3, 40, 40)
    pool = WarpedCrop(levels=LEVELS, size=14, crop=32, context=8)
    crop = pool.crop(image, torch.tensor([[0, 0.0, 0, 40, 40]]))[0, 0]
    assert crop[8:24, 8:24].min() == 1
    assert crop[:7].max() == crop[:, :7].max() == crop[25:].max() == 0


def test_without_context_a_roi_of_the_crops_size_is_copied() -> None:
    image = torch.rand(2, 3, 50, 60)
    pool = WarpedCrop(levels=LEVELS, size=14, crop=16, context=0)
    crop = pool.crop(image, torch.tensor([[1, 8.0, 4, 24, 20], [0, 0, 0, 16, 16]]))
    torch.testing.assert_close(crop, torch.stack([image[1, :, 4:20, 8:24], image[0, :, :16, :16]]))


def test_large_rois_are_averaged_not_aliased() -> None:
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1
    crop = WarpedCrop(levels=LEVELS, size=14, crop=16, context=0).crop(stripes, torch.tensor([[0, 0.0, 0, 64, 64]]))
    torch.testing.assert_close(crop[..., 1:-1], torch.full((1, 3, 16, 14), 0.5))


@pytest.mark.parametrize(("crop", "size", "side"), [(224, 14, 14), (224, 7, 7), (64, 14, 4), (112, 7, 7)])
def test_the_map_is_at_most_the_heads(crop: int, size: int, side: int) -> None:
    pool = WarpedCrop(levels=LEVELS, size=size, crop=crop)
    assert pool.bins == side * side
    maps = {"C4": torch.randn(3, 8, -(-crop // 16), -(-crop // 16))}
    assert pool(maps, torch.zeros(3, 5)).shape == (3, 8, side, side)


def test_context_must_leave_something() -> None:
    with pytest.raises(ValueError, match=r"model.pool.context=32 on both sides leaves nothing of model.pool.crop=64"):
        WarpedCrop(levels=LEVELS, size=7, crop=64, context=32)
