"""The source maps of SSD (section 3.1) and RefineDet (section 3.1): a backbone's maps, continued by extra blocks.

The trunk is what precedes the extra blocks. It ends in fc7 on VGG-16 (pool5, and fc6 and fc7 as convs), in C5 on a
ResNet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.model.necks.neck import Neck, pick
from detlab.ranges import Count, Natural, Positive, Range, Size
from detlab.tensors.boxes import at_least_float32
from detlab.tensors.norms import LayerNorm, norm_layer
from detlab.tensors.structures import Level

FC_WIDTH = 1024  # channels of fc6 and fc7 as convs (DeepLab's subsampling of VGG's 4096)
ATROUS_DILATION = 6  # of fc6 behind a pool5 of stride 1
ROI_STRIDE = 32  # the coarsest map RoIs are read from


class L2Norm(nn.Module):
    """Channels at each location scaled to length 1, then by a learned factor each (ParseNet section 3.3).

    Args:
        channels: of the map.
        scale: initial value of the factors.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same, not below float32."""
        return self.scale.view(1, -1, 1, 1) * F.normalize(at_least_float32(x), dim=1)


class ExtraBlock(nn.Module):
    """1x1 conv, ReLU, k x k conv, ReLU.

    A map smaller than the kernel (of an image smaller than those trained on) is padded with rows and columns of zeros,
    so that at least one cell comes out. So is a map of one cell before a conv of stride 2, which changes no value:
    without it torch 2.15 on CPUs reads the weight gradient in bfloat16 from memory that was never written.

    Args:
        channels: of the map.
        spec: width of the 1x1, channels, kernel, stride, padding.
        norm: None, or bn, gn, ... after both convs.
    """

    def __init__(self, channels: int, spec: Sequence[int], norm: str | None) -> None:
        super().__init__()
        width, out, kernel, stride, padding = spec
        self.smallest = kernel - 2 * padding if stride == 1 else 2
        self.reduce = _conv(channels, width, norm, kernel=1)
        self.conv = _conv(width, out, norm, kernel=kernel, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, out, h', w']."""
        x = self.reduce(x)
        rows, columns = (max(0, self.smallest - side) for side in x.shape[-2:])
        if rows or columns:
            x = F.pad(x, (0, columns, 0, rows))
        return self.conv(x)


class SSDExtras(Neck):
    """Source maps of SSD and RefineDet.

    The maps in order: C3 (conv4_3 on VGG) and, where the trunk goes on to stride 32, C4 (conv5_3); then fc7 on VGG, C5
    on a ResNet; then extra1, extra2, ... Layers behind the deepest of `sources` are not built.

    Args:
        levels: the backbone's levels.
        fc_weights: weights of VGG's fc6 and fc7, empty for random ones; None on a network without them.
        canvas: px, a side or [height, width] of the images trained on. A block whose kernel is larger than its input
            there is not built, nor are those behind it: their weights would only see padding. None builds all.
        blocks: [width of the 1x1, channels, kernel, stride, padding] of each extra block.
        blocks_from: stride of the map that the first block reads. A trunk that ends deeper replaces the first blocks:
            C5 of a ResNet replaces SSD's first.
        sources: names of the maps to give; None for all.
        atrous: VGG's pool5 is 3x3 with stride 1 and fc6 dilated, fc7 has stride 16 (SSD). False: pool5 is 2x2 with
            stride 2, fc7 has stride 32, and conv5_3 is a source as well.
        dilation: of fc6; None for 6 with atrous and 1 without. RefineDet: 3.
        l2_scales: {map: initial factors of its L2 norm}, only on VGG, whose early maps have far larger values.
        norm: None, or bn, gn, ... after every conv of the extra blocks.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        fc_weights: Mapping[str, Tensor] | None = None,
        canvas: Count | Annotated[Sequence[Count], Size(2, 2)] | None = None,
        blocks: Sequence[Annotated[Sequence[Natural], Size(5, 5)]],
        blocks_from: Count = 16,
        sources: Sequence[str] | None = None,
        atrous: bool = True,
        dilation: Annotated[int, Range(1, 64)] | None = None,
        l2_scales: Mapping[str, Positive] | None = None,
        norm: LayerNorm | None = None,
    ) -> None:
        super().__init__()
        c3, c4, c5 = pick(levels, ["C3", "C4", "C5"], "model.neck.sources")
        if fc_weights is not None:
            fc7 = Level("fc7", FC_WIDTH, 16 if atrous else 32)
            maps = [c3, fc7] if atrous else [c3, c4, fc7]
        else:
            maps = [c3, c4, c5]
        specs, self.note = _with_room(maps[-1], _continuing(maps[-1], blocks, blocks_from), canvas)
        maps += [level for level, _ in specs]
        maps = maps[: 1 + _deepest(maps, sources)]
        names = [level.name for level in maps]
        self.levels = tuple(level for level in maps if sources is None or level.name in sources)
        self.for_rois = tuple(v.name for v in self.levels if v.stride <= ROI_STRIDE and not v.shrink)
        self.fc: nn.Module | None = None
        if fc_weights is not None and "fc7" in names:
            self.fc = _fc_convs(c4.channels, atrous, dilation or (ATROUS_DILATION if atrous else 1), fc_weights)
        read = [level.name for level in self.levels if level in levels]
        feed = "C4" if self.fc is not None else [level.name for level in maps if level in levels][-1]
        self.reads = tuple(sorted({*read, feed}))
        scales = l2_scales if fc_weights is not None and l2_scales else {}
        self.l2 = nn.ModuleDict({v.name: L2Norm(v.channels, scales[v.name]) for v in self.levels if v.name in scales})
        before = {after.name: level.channels for level, after in itertools.pairwise(maps)}
        self.blocks = nn.ModuleDict(
            {v.name: ExtraBlock(before[v.name], spec, norm) for v, spec in specs if v.name in names}
        )

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{C: [B, C, h, w]} -> the source maps, finest first."""
        known = dict(maps)
        x = maps[self.reads[-1]]
        if self.fc is not None:
            known["fc7"] = x = self.fc(x)
        for name, block in self.blocks.items():
            known[name] = x = block(x)
        given = {level.name: known[level.name] for level in self.levels}
        return given | {name: norm(given[name]) for name, norm in self.l2.items()}

    def without_anchors(self) -> None:
        """Leave out the blocks behind the coarsest map that RoIs are read from."""
        super().without_anchors()
        deepest = self.levels[-1].name
        kept = list(self.blocks)[: list(self.blocks).index(deepest) + 1] if deepest in self.blocks else []
        self.blocks = nn.ModuleDict({name: self.blocks[name] for name in kept})


def _continuing(trunk: Level, blocks: Sequence[Sequence[int]], start: int) -> list[tuple[Level, Sequence[int]]]:
    """(level, block) of the extra blocks behind a trunk, without the first ones that it replaces."""
    if any(len(block) != 5 for block in blocks):
        raise ValueError(
            f"model.neck.blocks needs five numbers for each: width, channels, kernel, stride, padding; got {blocks}."
        )
    if trunk.stride < start:
        raise ValueError(
            f"model.neck.blocks_from={start} lies behind {trunk.name} of stride {trunk.stride}; use "
            f"model.neck.blocks_from={trunk.stride}, or model.neck.atrous=false on VGG."
        )
    out, stride, shrink = [], start, 0
    for number, block in enumerate(blocks, start=1):
        _, channels, kernel, step, padding = block
        lost = kernel - 1 - 2 * padding
        if step not in (1, 2) or lost < 0 or (step == 2 and (lost or shrink)):
            raise ValueError(
                f"model.neck.blocks: {list(block)} neither halves its map (stride 2, padding (kernel - 1) / 2, before "
                f"any unpadded block) nor shrinks it (stride 1); SSD's are [256, 512, 3, 2, 1] and [128, 256, 3, 1, 0]."
            )
        stride, shrink = stride * step, shrink + lost
        if number > math.log2(trunk.stride / start):
            out.append((Level(f"extra{number}", channels, stride, shrink), block))
    return out


def _with_room(
    trunk: Level, specs: list[tuple[Level, Sequence[int]]], canvas: int | Sequence[int] | None
) -> tuple[list[tuple[Level, Sequence[int]]], str]:
    """The blocks whose kernel fits into their input map on the canvas, and a note on the others."""
    if canvas is None:
        return specs, ""
    side = canvas if isinstance(canvas, int) else min(canvas)
    before = trunk
    for i, (level, (_, _, kernel, _, padding)) in enumerate(specs):
        (rows, _) = before.size((side, side))
        if rows + 2 * padding < kernel:
            dropped = ", ".join(v.name for v, _ in specs[i:])
            note = f"without {dropped}: a canvas of {side} px leaves a map of {rows} to a conv of {kernel}"
            return specs[:i], note
        before = level
    return specs, ""


def _deepest(maps: Sequence[Level], sources: Sequence[str] | None) -> int:
    """Index of the deepest map of `sources`; of the last map where `sources` is None."""
    names = [level.name for level in maps]
    unknown = [name for name in sources or () if name not in names]
    if unknown or sources == []:
        wrong = unknown[0] if unknown else "[]"
        raise ValueError(f"model.neck.sources={wrong} is not a map of this backbone; use some of {', '.join(names)}.")
    return max(names.index(name) for name in sources) if sources else len(names) - 1


def _fc_convs(channels: int, atrous: bool, dilation: int, weights: Mapping[str, Tensor]) -> nn.Sequential:
    """pool5, fc6 as a dilated 3x3 conv, fc7 as a 1x1 conv; weights subsampled from VGG's where there are any."""
    fc6 = nn.Conv2d(channels, FC_WIDTH, 3, padding=dilation, dilation=dilation)
    fc7 = nn.Conv2d(FC_WIDTH, FC_WIDTH, 1)
    for conv in (fc6, fc7):
        _xavier(conv)
    if "fc6.weight" in weights and "fc7.weight" in weights:
        with torch.no_grad():
            side = round((weights["fc6.weight"].shape[1] / channels) ** 0.5)  # 7
            whole = weights["fc6.weight"].unflatten(1, (channels, side, side))
            every = whole.shape[0] // FC_WIDTH  # 4096 / 1024
            fc6.weight.copy_(whole[::every, :, :: side // 2, :: side // 2])  # taps 0, 3 and 6 of 7
            fc7.weight.copy_(weights["fc7.weight"][::every, ::every, None, None])
            for conv, name in ((fc6, "fc6.bias"), (fc7, "fc7.bias")):
                if conv.bias is not None:
                    conv.bias.copy_(weights[name][::every])
    pool = nn.MaxPool2d(3, stride=1, padding=1) if atrous else nn.MaxPool2d(2, stride=2, ceil_mode=True)
    return nn.Sequential(pool, fc6, nn.ReLU(inplace=True), fc7, nn.ReLU(inplace=True))


def _conv(
    channels: int, out: int, norm: str | None, *, kernel: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, bias=norm is None)
    _xavier(conv)
    layers: list[nn.Module] = [conv]
    if norm is not None:
        layers.append(norm_layer(norm, "model.neck.norm")(out))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _xavier(conv: nn.Conv2d) -> None:
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
