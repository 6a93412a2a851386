"""RefineDet's transfer connection block, which turns source maps into the second stage's (RefineDet section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.ranges import Count
from detlab.tensors.structures import Level


class TransferConnection(nn.Module):
    """conv, ReLU, conv of each map, plus the next coarser result through a 2x2 deconv; ReLU, conv, ReLU.

    Args:
        levels: maps it reads, finest first.
        width: channels of every result.

    Attributes:
        levels: the results, named tcb_ and the map's name, so that both kinds fit one dictionary.
    """

    def __init__(self, *, levels: Sequence[Level], width: Count = 256) -> None:
        super().__init__()
        self.sources = tuple(level.name for level in levels)
        self.levels = tuple(v._replace(name=f"tcb_{v.name}", channels=width) for v in levels)
        self.enter = nn.ModuleDict(
            {
                v.name: nn.Sequential(_conv(v.channels, width), nn.ReLU(inplace=True), _conv(width, width))
                for v in levels
            }
        )
        self.up = nn.ModuleDict({v.name: nn.ConvTranspose2d(width, width, 2, stride=2) for v in levels[:-1]})
        self.leave = nn.ModuleDict({v.name: _conv(width, width) for v in levels})
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{name: [B, C, h, w]} -> {tcb_name: [B, width, h, w]}, finest first."""
        out: dict[str, Tensor] = {}
        above: Tensor | None = None
        for name in reversed(self.sources):
            x = self.enter[name](maps[name])
            if above is not None:
                x = x + _fit(self.up[name](above), x.shape[-2:])
            above = F.relu(self.leave[name](F.relu(x)))
            out[f"tcb_{name}"] = above
        return dict(reversed(out.items()))


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


def _fit(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x cut to `size` where the finer side is odd; upsampled (nearest) where x is smaller (maps that do not halve)."""
    if x.shape[-2] >= size[0] and x.shape[-1] >= size[1]:
        return x[..., : size[0], : size[1]]
    return F.interpolate(x, size=tuple(size), mode="nearest")
