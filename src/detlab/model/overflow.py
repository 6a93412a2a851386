"""Count of the images for which a network gave values that are not finite, as weights that overflow in use do.

Such values pass every threshold as false, so that an image seems to have no object. The count stays on the device
until it is asked for: nothing waits for a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Overflow:
    """Counts images with NaN or infinite values."""

    def __init__(self) -> None:
        self.count: Tensor | int = 0

    def see(self, *values: Tensor) -> None:
        """Count the images of a batch in which some of these values, each [B, ...], are not finite."""
        sums = [value.detach().sum(dim=tuple(range(1, value.dim())), dtype=torch.float32) for value in values]
        self.count = self.count + (~torch.isfinite(torch.stack(sums))).any(0).sum()


def forget_overflow(network: nn.Module) -> None:
    """Begin all counts of a network again."""
    for counter in _counters(network):
        counter.count = 0


def overflowed(network: nn.Module) -> int:
    """Images with values that are not finite since the counts began, as counted by the step that saw most of them."""
    return max((int(counter.count) for counter in _counters(network)), default=0)


def overflow_note(count: int, images: int, source: str) -> str:
    """The sentence on images whose values are not finite.

    Args:
        count: as counted; with several views of each image it may be larger than their number.
        images: all images that were seen.
        source: the weights.
    """
    return (
        f"{source} gives values that are not finite (NaN or infinite) for {min(count, images)} of {images} images, in "
        f"which it finds too little or nothing: its weights or the precision overflow; take an earlier checkpoint, or "
        f"32-bit floats."
    )


def _counters(network: nn.Module) -> list[Overflow]:
    found = (getattr(module, "overflow", None) for module in network.modules())
    return [counter for counter in found if isinstance(counter, Overflow)]
