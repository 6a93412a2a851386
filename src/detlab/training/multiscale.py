"""Multi-scale training: a new canvas size every few steps (YOLO9000 section 2).

The size depends on (seed, step) only, so a resumed run and all processes draw the same sizes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated

import torch
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torch's own convention

from detlab.ranges import Count, Factor, Natural, Side, Size
from detlab.tensors.structures import Batch


class MultiScale:
    """Resizes whole batches including their padding; anchor sizes in pixels do not change.

    Args:
        sizes: px of the canvas' longer side to draw from; sides become multiples of `divisor`.
        factors: factors of the canvas size to draw from, instead of sizes.
        every: steps between draws.
        last: number of steps at the end of training that use the largest size.
        divisor: canvas sides are multiples of it.
    """

    def __init__(
        self,
        *,
        sizes: Annotated[Sequence[Side], Size(1)] | None = None,
        factors: Annotated[Sequence[Factor], Size(1)] | None = None,
        every: Count = 10,
        last: Natural = 0,
        divisor: Count = 32,
    ) -> None:
        choices = sizes or factors
        if (sizes is None) == (factors is None) or not choices or min(choices) <= 0 or every < 1 or last < 0:
            raise ValueError(
                f"multiscale needs positive sizes or factors (not both), every >= 1 and last >= 0; got sizes={sizes}, "
                f"factors={factors}, every={every}, last={last}."
            )
        self.choices, self.in_pixels = [float(c) for c in choices], sizes is not None
        self.every, self.last, self.divisor = every, last, divisor

    def choice(self, seed: int, step: int, steps: int | None = None) -> float:
        """Size or factor at a step; `steps` is the length of the training, if known."""
        if steps is not None and step >= steps - self.last:
            return max(self.choices)
        return random.Random(f"{seed} {step // self.every}").choice(self.choices)

    def __call__(self, batch: Batch, seed: int, step: int, steps: int | None = None) -> Batch:
        """The batch with images, boxes and proposals resized to the size of the step."""
        height, width = batch.canvas
        factor = self.choice(seed, step, steps) / (max(height, width) if self.in_pixels else 1)
        canvas = [max(1, round(side * factor / self.divisor)) * self.divisor for side in (height, width)]
        if canvas == [height, width]:
            return batch
        scale = torch.tensor([canvas[0] / height, canvas[1] / width], device=batch.images.device)  # y, x
        new, old = batch.sizes.new_tensor(canvas), batch.sizes.new_tensor([height, width])
        sizes = (batch.sizes * new + old - 1) // old  # rounded up in integers: floats may add a row of padding
        corners = scale.flip(0).repeat(2)
        targets, proposals = batch.targets, batch.proposals
        if targets is not None:
            targets = targets._replace(boxes=targets.boxes * corners, area=targets.area * scale.prod())
        if proposals is not None:
            proposals = proposals._replace(boxes=proposals.boxes * corners)
        images = F.resize(batch.images, canvas, antialias=True)
        return batch._replace(images=images, sizes=sizes, targets=targets, proposals=proposals)
