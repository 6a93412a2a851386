"""Necks without parameters: one map, or the backbone's hierarchy as it is (FPN figure 1, b and c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from detlab.model.necks.neck import Neck, pick
from detlab.tensors.structures import Level


class SingleMap(Neck):
    """One map of the backbone (Faster R-CNN: C4).

    Args:
        levels: the backbone's levels.
        level: which one.
    """

    single_map = True

    def __init__(self, *, levels: Sequence[Level], level: str = "C4") -> None:
        super().__init__()
        self.levels = tuple(pick(levels, [level], "model.neck.level"))
        self.reads = self.for_rois = (level,)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The one map."""
        return {name: maps[name] for name in self.reads}


class Hierarchy(Neck):
    """Several maps as they are, without a top-down path (the pyramidal feature hierarchy of SSD).

    Args:
        levels: the backbone's levels.
        names: which ones.
    """

    def __init__(self, *, levels: Sequence[Level], names: Sequence[str] = ("C3", "C4", "C5")) -> None:
        super().__init__()
        self.levels = tuple(pick(levels, sorted(names), "model.neck.names"))
        self.reads = self.for_rois = tuple(level.name for level in self.levels)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The named maps."""
        return {name: maps[name] for name in self.reads}
