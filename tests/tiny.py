"""A backbone of a few thousand parameters, for tests of what surrounds a network."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from detlab.model.backbones import Backbone
from detlab.tensors.structures import Level

WIDTH = 8


class Tiny(Backbone):
    """One strided convolution per level."""

    levels = tuple(Level(f"C{i}", WIDTH, 2**i) for i in range(2, 6))

    def __init__(self, *, weights: str | None = None, norm: str = "bn", frozen_stages: int = 0) -> None:
        super().__init__(weights=weights, norm=norm, frozen_stages=frozen_stages)
        self.stem = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.blocks = nn.ModuleDict(
            {
                level.name: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
                for level in self.levels
            }
        )

    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("stem", self.stem), *self.blocks.items()]

    def keep(self, names: Iterable[str]) -> None:
        deepest = max(names)
        for name in [name for name in self.blocks if name > deepest]:
            del self.blocks[name]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps, x = {}, self.stem(x)
        for name, block in self.blocks.items():
            x = maps[name] = block(x)
        return maps
