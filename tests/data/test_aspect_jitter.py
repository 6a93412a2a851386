"""darknet's aspect jitter: the canvas stays, the image fits it, boxes go along."""

import pytest
import torch

from detlab.data.transforms import AspectJitter, as_sample


def sample(height: int, width: int) -> dict[str, object]:
    """A white image whose one box is the whole image."""
    none = torch.zeros(1, dtype=torch.bool)
    boxes = torch.tensor([[0.0, 0, width, height]])
    image = torch.full((3, height, width), 255, dtype=torch.uint8)
    return as_sample(image, boxes, torch.tensor([0]), torch.tensor([float(height * width)]), none, none)


@pytest.mark.parametrize("seed", range(20))
def test_the_box_stays_on_the_image(seed: int) -> None:
    torch.manual_seed(seed)
    out = AspectJitter(jitter=0.3, fill=7)(sample(40, 60))
    assert out["image"].shape == (3, 40, 60)
    white = (out["image"][0] == 255).nonzero()
    (top, left), (bottom, right) = white.amin(0).tolist(), (white.amax(0) + 1).tolist()
    assert out["boxes"][0].tolist() == [left, top, right, bottom]
    assert (out["image"] == 255).sum() + (out["image"] == 7).sum() == 3 * 40 * 60
    assert bottom - top == 40 or right - left == 60  # one side fills the canvas
    ratio = (right - left) / (bottom - top) / 1.5
    assert 0.7 / 1.3 - 0.05 <= ratio <= 1.3 / 0.7 + 0.05


def test_without_jitter_nothing_changes() -> None:
    given = sample(40, 60)
    assert torch.equal(AspectJitter(jitter=0.0)(given)["image"], given["image"])
    with pytest.raises(ValueError, match=r"augment.jitter=1.0 must be a share"):
        AspectJitter(jitter=1.0)
