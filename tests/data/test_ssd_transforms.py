"""SSD's augmentation draws and gives exactly what torchvision's transforms do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.data.ssd_transforms import IoUCropOrNot, PhotometricDistort, ZoomOut, shifted_hue
from detlab.data.transforms import as_sample


def picture(height: int, width: int) -> Tensor:
    """Random pixels, channels-last as decoders give them."""
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).permute(2, 0, 1)


def sample(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    height, width = 30 + seed, 40 - seed
    low = torch.rand(3, 2) * 10
    boxes = torch.cat([low, low + 1 + torch.rand(3, 2) * torch.tensor([width - 12.0, height - 12.0])], 1)
    flags = torch.zeros(3, dtype=torch.bool)
    return as_sample(picture(height, width), boxes, torch.arange(3), torch.ones(3), flags, flags)


@pytest.mark.parametrize("shift", [-0.5, -0.05, -0.0317, 0.0, 0.01, 0.05, 0.3, 0.5])
def test_hues_of_all_kinds_of_colours(shift: float) -> None:
    steps = torch.tensor([*range(0, 256, 15), 1, 2, 127, 128, 254], dtype=torch.uint8)
    colours = torch.cartesian_prod(steps, steps, steps).T.reshape(3, len(steps), -1)
    assert torch.equal(shifted_hue(colours, shift), F.adjust_hue(colours, shift))


def test_hues_of_an_image_of_several_strips() -> None:
    image = picture(300, 301)
    assert torch.equal(shifted_hue(image, 0.04), F.adjust_hue(image, 0.04))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PhotometricDistort(p=0.7), v2.RandomPhotometricDistort(p=0.7)),
        (ZoomOut(fill=[124, 116, 104], p=0.8), v2.RandomZoomOut(fill=[124, 116, 104], p=0.8)),
        (ZoomOut(fill=7, p=0.8), v2.RandomZoomOut(fill=7, p=0.8)),
    ],
)
def test_samples_and_draws(ours: v2.Transform, theirs: v2.Transform) -> None:
    for seed in range(12):
        found, ends = [], []
        for transform in (ours, theirs):
            given = sample(seed)
            found.append(transform(given))
            ends.append(torch.rand(()))
        assert torch.equal(found[0]["image"], found[1]["image"])
        assert torch.equal(found[0]["boxes"], found[1]["boxes"])
        assert type(found[0]["image"]) is type(found[1]["image"])
        assert ends[0] == ends[1]


def test_crops_and_draws() -> None:
    ours = IoUCropOrNot(trials=20)
    cropped = 0
    for seed in range(25):
        given = sample(seed % 10)
        torch.manual_seed(seed)
        place, end = ours.place(given["image"].shape[-2:], given["boxes"]), torch.rand(())
        torch.manual_seed(seed)
        theirs, their_end = ours.crop.make_params([given["image"], given["boxes"]]), torch.rand(())
        assert end == their_end
        assert (place is None) == (not theirs)
        if place is not None:
            assert torch.equal(place.pop("is_within_crop_area"), theirs.pop("is_within_crop_area"))
            assert place == theirs
            cropped += 1
    assert cropped > 5
