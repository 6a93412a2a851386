"""The networks of YOLO: extraction (YOLOv1), Darknet-19 (YOLO9000, table 6), Darknet-53 (YOLOv3, table 1).

C2-C5 at strides 4-32; pools work in ceil mode, so that a map is ceil(side / stride). Images enter as RGB / 255.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from torch import Tensor, nn

from detlab.model.backbones.backbone import STAGES, Backbone, Frozen, Tail
from detlab.model.backbones.darknet_file import fill_trunk, is_darknet_file
from detlab.model.backbones.weights import WeightsError, fill, load_state
from detlab.ranges import OneOf, Share
from detlab.tensors.leaky import MOMENTUM, leaky_conv
from detlab.tensors.norms import NORMS
from detlab.tensors.structures import Level

POOL = (0, 0)  # in a plan: max-pool 2x2 of stride 2
Plan = tuple[tuple[int, int], ...]  # (channels, kernel) of each conv
PLAIN: dict[str, tuple[Plan, ...]] = {  # the stem, then C2 to C5; a stage begins with its pool
    "extraction": (
        ((64, 7),),  # of stride 2
        (POOL, (192, 3)),
        (POOL, (128, 1), (256, 3), (256, 1), (512, 3)),
        (POOL, *(((256, 1), (512, 3)) * 4), (512, 1), (1024, 3)),
        (POOL, *(((512, 1), (1024, 3)) * 2)),
    ),
    "darknet19": (
        ((32, 3), POOL, (64, 3)),
        (POOL, (128, 3), (64, 1), (128, 3)),
        (POOL, (256, 3), (128, 1), (256, 3)),
        (POOL, (512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),
        (POOL, (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3)),
    ),
}
RESIDUAL = {"C2": (128, 2), "C3": (256, 8), "C4": (512, 8), "C5": (1024, 4)}  # Darknet-53: channels, blocks
NAMES = (*PLAIN, "darknet53")


class Residual(nn.Module):
    """1x1 to half the channels, 3x3 back, added to the input."""

    def __init__(self, width: int, norm: str, momentum: float) -> None:
        super().__init__()
        self.reduce = _conv(width, width // 2, 1, 1, norm, momentum)
        self.conv = _conv(width // 2, width, 3, 1, norm, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same."""
        return x + self.conv(self.reduce(x))


class Darknet(Backbone):
    """Maps C2-C5 of one of darknet's classification networks.

    Args:
        name: extraction, darknet19 or darknet53.
        weights: null for random weights, or the path of a state dict or of a darknet file: the network's own
            (`darknet53.weights`) or its first layers (`darknet53.conv.74`).
        norm: bn, frozen_bn, sync_bn, gn, or none (the network of the YOLOv1 paper).
        norm_momentum: weight of a batch in the running statistics.
        frozen_stages: 0 trains everything, 1 freezes the stem, 2 also C2, ... 5 all.
    """

    def __init__(
        self,
        *,
        name: Annotated[str, OneOf(NAMES)],
        weights: str | None = None,
        norm: Annotated[str, OneOf(("none", *NORMS))] = "bn",
        norm_momentum: Share = MOMENTUM,
        frozen_stages: Frozen = 0,
    ) -> None:
        super().__init__(weights=weights, norm=norm, frozen_stages=frozen_stages)
        if name not in NAMES:
            raise ValueError(f"model.backbone.name={name} is not known; use one of {', '.join(NAMES)}.")
        self.mean.zero_()
        self.std.fill_(255)
        plan = _plain(PLAIN[name], norm, norm_momentum) if name in PLAIN else _residual(norm, norm_momentum)
        self.stem, self.stage2, self.stage3, self.stage4 = (stage for stage, _ in plan[:4])
        self.stage5: nn.Module | None = plan[4][0]
        widths = [width for _, width in plan[1:]]
        self.levels = tuple(Level(s, c, 4 * 2**i) for i, (s, c) in enumerate(zip(STAGES, widths, strict=True)))
        self.tail = Tail(channels=widths[2], size=14, width=widths[3])
        if weights is not None:
            self._load(weights)
        self.reads: tuple[str, ...] = STAGES
        self.freeze()

    def _load(self, weights: str) -> None:
        if self.norm == "gn":
            raise WeightsError(
                "model.backbone.norm=gn cannot take batch-norm weights; use model.backbone.norm=frozen_bn, or "
                "model.backbone.weights=null."
            )
        if weights == "imagenet":
            raise WeightsError(
                "model.backbone.weights=imagenet is torchvision's, which has no Darknet; give the path of a darknet "
                "file such as darknet53.conv.74, or null for random weights."
            )
        if is_darknet_file(weights):
            fill_trunk([module for _, module in self.stages()], self.levels[-1].channels, weights)
        elif not Path(weights).expanduser().is_file():
            raise WeightsError(
                f"model.backbone.weights={weights} is no file; give null for random weights, or the path of a darknet "
                f"file (.weights, .conv.N) or of a state dict."
            )
        else:
            fill(self, load_state(weights) | {"mean": self.mean, "std": self.std}, "model.backbone.weights")

    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) in order of depth, without removed stages."""
        layers = [self.stem, self.stage2, self.stage3, self.stage4, self.stage5]
        return [(s, m) for s, m in zip(("stem", *STAGES), layers, strict=True) if m is not None]

    def take_tail(self) -> nn.Module:
        """The last stage and the average pool: [N, C4, 14, 14] -> [N, C5]."""
        if self.stage5 is None:
            raise ValueError("The backbone has given its last stage away already; one RoI head can have it.")
        tail = nn.Sequential(self.stage5, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.stage5 = None
        return tail.requires_grad_(True)  # now part of the head: frozen_stages does not apply

    def keep(self, names: Iterable[str]) -> None:
        """Remove every stage behind the deepest of `names`."""
        self.reads = tuple(sorted(names))
        for stage in STAGES:
            if stage > self.reads[-1]:
                setattr(self, f"stage{stage[1]}", None)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] -> {level: [B, C, h, w]} for the levels that are read."""
        maps = {}
        for name, module in self.stages():
            x = module(x)
            if name in self.reads:
                maps[name] = x
        return maps


def _conv(entry: int, width: int, kernel: int, stride: int, norm: str, momentum: float) -> nn.Sequential:
    return leaky_conv(entry, width, kernel, stride=stride, norm=norm, momentum=momentum, option="model.backbone")


def _plain(plan: tuple[Plan, ...], norm: str, momentum: float) -> list[tuple[nn.Sequential, int]]:
    """Stages of convs and pools, and the channels each ends in."""
    made, entry = [], 3
    for stage in plan:
        layers: list[nn.Module] = []
        for width, kernel in stage:
            if (width, kernel) == POOL:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                continue
            layers.append(_conv(entry, width, kernel, 2 if kernel == 7 else 1, norm, momentum))
            entry = width
        made.append((nn.Sequential(*layers), entry))
    return made


def _residual(norm: str, momentum: float) -> list[tuple[nn.Sequential, int]]:
    """Stages of Darknet-53, each a 3x3 conv of stride 2 and residual blocks."""
    stem = nn.Sequential(
        _conv(3, 32, 3, 1, norm, momentum), _conv(32, 64, 3, 2, norm, momentum), Residual(64, norm, momentum)
    )
    made, entry = [(stem, 64)], 64
    for width, blocks in RESIDUAL.values():
        down = _conv(entry, width, 3, 2, norm, momentum)
        made.append((nn.Sequential(down, *(Residual(width, norm, momentum) for _ in range(blocks))), width))
        entry = width
    return made
