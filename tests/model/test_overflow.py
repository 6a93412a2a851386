"""Images whose values are not finite are counted, in whichever step they appear first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detlab.model.coders import BoxCoder
from detlab.model.detect import Detect, ProposalDetect
from detlab.model.overflow import forget_overflow, overflow_note, overflowed

ANCHORS = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
SIZES = torch.tensor([[100, 100]] * 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_images_with_such_values_are_counted(value: float, half: bool) -> None:
    """In logits or in offsets; 300 x 300 = 90,000 is no 16-bit float, and yet a finite sum."""
    final = Detect(score_threshold=0.1)
    network = nn.Sequential(nn.Identity(), final)
    logits, deltas = torch.full((3, 2, 300), 300.0), torch.zeros(3, 2, 4)
    dtype = torch.float16 if half else torch.float32

    def run() -> None:
        final(logits.to(dtype), deltas.to(dtype), ANCHORS, BoxCoder(), SIZES, activation=lambda x, images: x.sigmoid())

    run()
    assert overflowed(network) == 0
    logits[0, 1, 2] = deltas[2, 0, 0] = value
    run()
    assert overflowed(network) == 2
    forget_overflow(network)
    assert overflowed(network) == 0


def test_a_first_stage_is_counted_in_testing_only() -> None:
    """With no proposal left, the last stage has nothing that is not finite; the note counts an image once."""
    first = ProposalDetect(pre_nms_train=2, pre_nms_test=2, post_nms_train=2, post_nms_test=2)
    network = nn.Sequential(first, Detect())
    scores, deltas = torch.full((3, 2), float("nan")), torch.zeros(3, 2, 4)
    for for_training, count in ((True, 0), (False, 3), (False, 6)):
        first(scores, deltas, ANCHORS, BoxCoder(), SIZES, [2], for_training=for_training)
        assert overflowed(network) == count
    assert "for 3 of 3 images" in overflow_note(6, 3, "best.ckpt")
