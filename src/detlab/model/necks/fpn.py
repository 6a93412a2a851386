"""Feature pyramid network (FPN section 3), with the switches its table 1 ablates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from detlab.model.necks.neck import Neck, pick
from detlab.model.necks.spp import SPPBlock
from detlab.ranges import Count, OddCount, OneOf, Range, Size
from detlab.tensors.norms import LayerNorm, norm_layer
from detlab.tensors.structures import Level

EXTRAS = ("none", "pool", "conv_c", "conv_p")


class FPN(Neck):
    """Lateral 1x1 convs, a top-down path of nearest upsampling and sums, a 3x3 conv on each merged map.

    Args:
        levels: the backbone's levels.
        finest: number of the finest map: 2 for P2-P5, 3 for P3-P5.
        coarsest: number of the coarsest backbone map; 4 for P2-P4 or P3-P4, where objects are small.
        width: channels of every map.
        extra: coarser maps for anchors (names for coarsest=5). pool: P6 by subsampling P5 (FPN). conv_c: P6 = 3x3/2 on
            C5, P7 = 3x3/2 on ReLU(P6) (RetinaNet). conv_p: the same on P5 (torchvision's first RetinaNet). none.
        lateral: False cuts the laterals of all but the coarsest map (table 1 e).
        top_down: False cuts the upsampling path (table 1 d).
        finest_only: give only the finest map (table 1 f).
        norm: null, or bn, gn, ... after every conv.
        spp_kernels: null, or the pools of an SPP block on the coarsest backbone map.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        finest: Annotated[int, Range(2, 4)] = 3,
        coarsest: Annotated[int, Range(3, 5)] = 5,
        width: Count = 256,
        extra: Annotated[str, OneOf(EXTRAS)] = "conv_c",
        lateral: bool = True,
        top_down: bool = True,
        finest_only: bool = False,
        norm: LayerNorm | None = None,
        spp_kernels: Annotated[Sequence[OddCount], Size(1)] | None = None,
    ) -> None:
        super().__init__()
        if not 2 <= finest < coarsest <= 5:
            raise ValueError(f"model.neck needs 2 <= finest < coarsest <= 5; got finest={finest}, coarsest={coarsest}.")
        if extra not in EXTRAS:
            raise ValueError(f"model.neck.extra={extra} is not known; use one of {', '.join(EXTRAS)}.")
        if not top_down and (finest_only or not lateral):
            raise ValueError(
                "model.neck.top_down=false with model.neck.finest_only=true or model.neck.lateral=false leaves maps "
                "that nothing reads or feeds; keep model.neck.top_down=true."
            )
        numbers = range(finest, coarsest + 1)
        inputs = pick(levels, [f"C{n}" for n in numbers], "model.neck.finest")
        self.reads = tuple(level.name for level in inputs)
        self.top_down, self.extra = top_down, "none" if finest_only else extra
        self.spp = SPPBlock(inputs[-1].channels, spp_kernels) if spp_kernels else None
        with_lateral = inputs if lateral else inputs[-1:]
        self.lateral = nn.ModuleDict({c.name: _conv(c.channels, width, 1, norm) for c in with_lateral})
        outputs = inputs[:1] if finest_only else inputs
        self.output = nn.ModuleDict({_p(c.name): _conv(width, width, 3, norm) for c in outputs})
        made = [Level(_p(c.name), width, c.stride) for c in outputs]
        self.for_rois = tuple(level.name for level in made)
        self.p6: nn.Conv2d | None = None
        self.p7: nn.Conv2d | None = None
        if self.extra == "pool":
            made.append(self._coarser(made[-1]))
        elif self.extra in ("conv_c", "conv_p"):
            source = inputs[-1].channels if self.extra == "conv_c" else width
            self.p6 = nn.Conv2d(source, width, 3, stride=2, padding=1)
            self.p7 = nn.Conv2d(width, width, 3, stride=2, padding=1)
            made.append(self._coarser(made[-1]))
            made.append(self._coarser(made[-1]))
        self.levels = tuple(made)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{C: [B, C, h, w]} -> {P: [B, width, h, w]}."""
        top = maps[self.reads[-1]]
        if self.spp is not None:
            top = self.spp(top)
        merged: dict[str, Tensor] = {}
        above: Tensor | None = None
        for name in reversed(self.reads):
            x = top if name == self.reads[-1] else maps[name]
            here = self.lateral[name](x) if name in self.lateral else None
            if above is not None and self.top_down:
                up = F.interpolate(above, size=maps[name].shape[-2:], mode="nearest")
                here = up if here is None else here + up
            assert here is not None  # the coarsest map always has its lateral, and top_down=false all of them
            merged[name] = above = here
        out = {_p(n): self.output[_p(n)](merged[n]) for n in self.reads if _p(n) in self.output}
        names = [level.name for level in self.levels[len(out) :]]
        if self.extra == "pool":
            out[names[0]] = F.max_pool2d(out[self.for_rois[-1]], kernel_size=1, stride=2)
        elif self.p6 is not None and self.p7 is not None:
            out[names[0]] = _halved(self.p6, top if self.extra == "conv_c" else out[self.for_rois[-1]])
            out[names[1]] = _halved(self.p7, F.relu(out[names[0]]))
        return out

    def without_anchors(self) -> None:
        """Leave out P6 and P7."""
        super().without_anchors()
        self.extra, self.p6, self.p7 = "none", None, None

    @staticmethod
    def _coarser(level: Level) -> Level:
        return Level(f"P{int(level.name[1:]) + 1}", level.channels, level.stride * 2)


def _p(name: str) -> str:
    return "P" + name[1:]


def _halved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 conv of stride 2 and padding 1.

    A map of one cell is padded with a row and a column of zeros, which changes no value. Without them torch 2.15 on
    CPUs reads the weight gradient in bfloat16 from memory that was never written (NaN in most tries).
    """
    return conv(F.pad(x, (0, 1, 0, 1)) if x.shape[-2:] == (1, 1) else x)


def _conv(channels: int, width: int, kernel: int, norm: str | None) -> nn.Module:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=norm is None)
    if norm is None:
        return conv
    return nn.Sequential(conv, norm_layer(norm, "model.neck.norm")(width))
