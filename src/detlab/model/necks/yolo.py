"""Necks of the YOLO family: v1's four convs, v2's passthrough, v3's pyramid of concatenations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.model.necks.neck import Neck, pick
from detlab.ranges import Count, Layers, Natural, OneOf, Share, Size
from detlab.tensors.leaky import MOMENTUM, leaky_conv
from detlab.tensors.norms import LeakyNorm
from detlab.tensors.structures import Level

REORGS = ("darknet", "space_to_depth")


class YOLOGrid(Neck):
    """Four 3x3 convs on C5, the second of stride 2: one map of stride 64 (YOLOv1 figure 3).

    Args:
        levels: the backbone's levels.
        width: channels.
        norm: bn, sync_bn, gn, or none (the paper's network; darknet's later one has bn).
        norm_momentum: weight of a batch in the running statistics.
    """

    single_map = True

    def __init__(
        self, *, levels: Sequence[Level], width: Count = 1024, norm: LeakyNorm = "bn", norm_momentum: Share = MOMENTUM
    ) -> None:
        super().__init__()
        (coarse,) = pick(levels, ["C5"], "model.neck")
        self.reads = ("C5",)
        conv = partial(leaky_conv, width=width, kernel=3, norm=norm, momentum=norm_momentum)
        made = [(coarse.channels, 1), (width, 2), (width, 1), (width, 1)]
        self.convs = nn.Sequential(*(conv(entry, stride=stride) for entry, stride in made))
        self.levels = (Level("G6", width, 2 * coarse.stride),)
        self.for_rois = ("G6",)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{C5: [B, C, h, w]} -> {G6: [B, width, ceil(h / 2), ceil(w / 2)]}."""
        return {"G6": self.convs(maps["C5"])}


class Reorg(nn.Module):
    """Each 2x2 square of places becomes one place of four times the channels.

    Args:
        order: how the values move. darknet: as its reorg layer does, which reads the map [C, H, W] as if it were
            [C / 4, 2 H, 2 W], so that neighbours are separated; darknet's trained weights need it. space_to_depth: the
            four places of a square, as the YOLO9000 paper describes.
    """

    def __init__(self, order: str = "darknet") -> None:
        super().__init__()
        if order not in REORGS:
            raise ValueError(f"model.neck.reorg={order} is not known; use one of {', '.join(REORGS)}.")
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 C, ceil(H / 2), ceil(W / 2)]; odd sides get a row or a column of zeros."""
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        b, c, h, w = x.shape
        if self.order == "space_to_depth":
            split = x.reshape(b, c, h // 2, 2, w // 2, 2)
        else:
            split = x.reshape(b, c // 4, h, 2, w, 2)
        return split.permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


class Passthrough(Neck):
    """Convs on C5, joined by C4 folded to its size: one map of stride 32 (YOLO9000 section 2, fine-grained features).

    Args:
        levels: the backbone's levels.
        squeeze: channels of the 1x1 conv on C4 before it is folded (darknet's 64); null for none (the paper); 0 for no
            C4 at all.
        width: channels of the convs on C5.
        convs: how many.
        reorg: darknet or space_to_depth, see `Reorg`.
        norm: bn, sync_bn, gn or none.
        norm_momentum: weight of a batch in the running statistics.
    """

    single_map = True

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        squeeze: Natural | None = 64,
        width: Count = 1024,
        convs: Layers = 2,
        reorg: Annotated[str, OneOf(REORGS)] = "darknet",
        norm: LeakyNorm = "bn",
        norm_momentum: Share = MOMENTUM,
    ) -> None:
        super().__init__()
        fine, coarse = pick(levels, ["C4", "C5"], "model.neck")
        if convs < 0 or (squeeze is not None and (squeeze < 0 or squeeze % 4)):
            raise ValueError(
                f"model.neck needs squeeze null or a multiple of 4 and convs not negative; got squeeze={squeeze}, "
                f"convs={convs}."
            )
        conv = partial(leaky_conv, norm=norm, momentum=norm_momentum)
        entries = [coarse.channels, *[width] * convs]
        self.convs = nn.Sequential(*(conv(entry, width, 3) for entry in entries[:convs]))
        self.squeeze: nn.Module | None = None
        channels = entries[convs]
        if squeeze is None:
            self.squeeze = nn.Identity()
            channels += 4 * fine.channels
        elif squeeze:
            self.squeeze = conv(fine.channels, squeeze, 1)
            channels += 4 * squeeze
        self.reorg = Reorg(reorg)
        self.reads = ("C5",) if self.squeeze is None else ("C4", "C5")
        self.levels = (Level("P5", channels, coarse.stride),)
        self.for_rois = ("P5",)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{C4, C5: [B, C, h, w]} -> {P5: [B, C', h, w]}; the folded channels come first, as in darknet."""
        coarse = self.convs(maps["C5"])
        if self.squeeze is None:
            return {"P5": coarse}
        return {"P5": torch.cat([self.reorg(self.squeeze(maps["C4"])), coarse], dim=1)}


class YOLOFPN(Neck):
    """Top-down path of YOLOv3: five convs a level, 1x1 and nearest upsampling, *concatenated* with the finer map.

    Args:
        levels: the backbone's levels.
        widths: channels of P3, P4, P5; the 3x3 convs in between have twice as many.
        norm: bn, sync_bn, gn or none.
        norm_momentum: weight of a batch in the running statistics.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        widths: Annotated[Sequence[Count], Size(3, 3)] = (128, 256, 512),
        norm: LeakyNorm = "bn",
        norm_momentum: Share = MOMENTUM,
    ) -> None:
        super().__init__()
        inputs = pick(levels, ["C3", "C4", "C5"], "model.neck")
        if len(widths) != 3 or min(widths) < 1:
            raise ValueError(f"model.neck.widths={list(widths)} needs three numbers, the channels of P3, P4 and P5.")
        self.reads = tuple(level.name for level in inputs)
        self.names = tuple("P" + name[1:] for name in self.reads)
        self.convs, self.up = nn.ModuleDict(), nn.ModuleDict()
        above = 0
        for level, width in reversed(list(zip(inputs, widths, strict=True))):
            name = "P" + level.name[1:]
            if above:
                self.up[name] = leaky_conv(above, width, 1, norm=norm, momentum=norm_momentum)
            self.convs[name] = _five_convs(level.channels + (width if above else 0), width, norm, norm_momentum)
            above = width
        self.levels = tuple(
            Level(name, width, level.stride) for name, width, level in zip(self.names, widths, inputs, strict=True)
        )
        self.for_rois = self.names

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{C3, C4, C5: [B, C, h, w]} -> {P3, P4, P5: [B, width, h, w]}; odd maps are cut to the finer one's size."""
        out: dict[str, Tensor] = {}
        above: Tensor | None = None
        for source, name in zip(reversed(self.reads), reversed(self.names), strict=True):
            x = maps[source]
            if above is not None:
                up = F.interpolate(self.up[name](above), scale_factor=2.0, mode="nearest")
                x = torch.cat([up[..., : x.shape[2], : x.shape[3]], x], dim=1)
            out[name] = above = self.convs[name](x)
        return {name: out[name] for name in self.names}


def _five_convs(entry: int, width: int, norm: str, momentum: float) -> nn.Sequential:
    """1x1, 3x3, 1x1, 3x3, 1x1: `width` channels and twice as many in turn."""
    double = 2 * width
    plan = ((entry, width, 1), (width, double, 3), (double, width, 1), (width, double, 3), (double, width, 1))
    return nn.Sequential(*(leaky_conv(e, w, k, norm=norm, momentum=momentum) for e, w, k in plan))
