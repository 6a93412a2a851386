"""Interface of necks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from detlab.tensors.structures import Level


class Neck(nn.Module, ABC):
    """Turns the backbone's maps into the maps that heads read.

    Attributes:
        reads: names of the backbone levels it needs.
        levels: the maps it gives, by ascending stride.
        for_rois: names of the levels that RoIs are read from; the others are for anchors only.
        note: one line that the user should read before training; empty for none.
        single_map: whether it always gives one map (a class attribute, which the config rules read).
    """

    single_map = False

    reads: tuple[str, ...]
    levels: tuple[Level, ...]
    for_rois: tuple[str, ...]
    note: str = ""

    @abstractmethod
    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{backbone level: [B, C, h, w]} -> {neck level: [B, C, h, w]}."""

    def roi_levels(self) -> tuple[Level, ...]:
        """The levels RoIs are read from."""
        return tuple(level for level in self.levels if level.name in self.for_rois)

    def without_anchors(self) -> None:
        """Remove levels that are for anchors only, and their weights, which nothing would train."""
        self.levels = self.roi_levels()


def pick(levels: Sequence[Level], names: Sequence[str], option: str) -> list[Level]:
    """The named levels of a backbone.

    Raises:
        ValueError: the backbone lacks one; the message names the option.
    """
    known = {level.name: level for level in levels}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"{option}={missing[0]} is not a level of the backbone; use one of {', '.join(known)}.")
    return [known[name] for name in names]
