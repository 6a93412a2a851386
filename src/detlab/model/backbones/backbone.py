"""Interface of backbones: levels, normalisation of uint8 images, frozen stages, and the tail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from detlab.ranges import Range
from detlab.tensors.structures import Level

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; torchvision's classification presets
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGES = ("C2", "C3", "C4", "C5")  # levels of the built-in networks, at strides 4 to 32


class Tail(NamedTuple):
    """Shapes of the layers behind C4 that a RoI head may take over."""

    channels: int  # of the map it reads, C4's
    size: int  # side of the pooled map it reads
    width: int  # features it gives


Frozen = Annotated[int, Range(0, 5)]  # stages


class Backbone(nn.Module, ABC):
    """A network that gives maps C2-C5 at strides 4-32; each map is ceil(side / stride).

    Only the stages that something reads are kept (`keep`), because parameters without gradient break DDP.

    Attributes:
        levels: all levels it can give.
        weights: the option it was built with; None for random weights.
        norm: the option it was built with.
        tail: shapes of the layers behind C4 that `take_tail` gives; None for a backbone that gives none.
    """

    levels: tuple[Level, ...]
    tail: Tail | None = None
    mean: Tensor  # [1, 3, 1, 1] of values 0..255
    std: Tensor

    def __init__(self, *, weights: str | None, norm: str, frozen_stages: int) -> None:
        super().__init__()
        if not 0 <= frozen_stages <= 5:
            raise ValueError(
                f"model.backbone.frozen_stages={frozen_stages} must lie between 0 (none) and 5 (all of C5)."
            )
        self.weights, self.norm, self.frozen_stages = weights, norm, frozen_stages
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    @abstractmethod
    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) in order of depth: the stem, then the stages of C2, C3, C4, C5; without removed ones."""

    def take_tail(self) -> nn.Module:
        """Remove and return the tail, for a RoI head; the backbone then ends at C4.

        Raises:
            ValueError: the backbone has no tail to give.
        """
        raise ValueError(f"{type(self).__name__} has no layers behind C4 to give to a RoI head; use model/head=fc.")

    @property
    def fc_weights(self) -> Mapping[str, Tensor] | None:
        """Weights of the network's fc6 and fc7, for a neck that turns them into convs (SSD).

        "fc6.weight" [4096, 512 * 7 * 7] and so on; empty for random weights, None for a network without fc6.
        """
        return None

    @abstractmethod
    def keep(self, names: Iterable[str]) -> None:
        """Remove every stage behind the deepest of `names`."""

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] -> {level: [B, C, h, w]} for the levels that are read."""

    def normalize(self, images: Tensor, sizes: Tensor, grey: float | None = None) -> Tensor:
        """uint8 images [B, 3, H, W] -> float32, channels-last.

        Padding outside `sizes` [B, 2] becomes 0, or the normalised value of `grey` (0 to 255) where it is given.
        """
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]
        columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        x = x * inside if grey is None else torch.where(inside, x, (grey - self.mean) / self.std)
        return x.contiguous(memory_format=torch.channels_last)

    def freeze(self) -> None:
        """Take the first `frozen_stages` stages out of training (1: the stem, 2: also C2, ...)."""
        for _, module in self.stages()[: self.frozen_stages]:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """As nn.Module; the batch norms of frozen stages stay in evaluation mode."""
        super().train(mode)
        for _, module in self.stages()[: self.frozen_stages]:
            module.eval()
        return self

    def trainable_report(self) -> list[tuple[str, int, int]]:
        """(stage, trainable parameters, parameters) of every stage."""
        rows = []
        for name, module in self.stages():
            sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
            rows.append((name, sum(n for n, grad in sizes if grad), sum(n for n, _ in sizes)))
        return rows
