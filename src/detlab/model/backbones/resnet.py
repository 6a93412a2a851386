"""ResNet-18 to 152 (Deep Residual Learning, table 1), torchvision's networks without the classifier."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet

from detlab.model.backbones.backbone import STAGES, Backbone, Frozen, Tail
from detlab.model.backbones.weights import WeightsError, fill, load_weights
from detlab.ranges import Count, NonNegative
from detlab.tensors.norms import NormName, norm_layer
from detlab.tensors.structures import Level

DEPTHS = (18, 34, 50, 101, 152)
PAPER_WIDTH = 64


class ResNet(Backbone):
    """Maps C2-C5 of a ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        weights: null for random weights, "imagenet", or the path of a torchvision state dict.
        norm: bn, frozen_bn, sync_bn or gn.
        norm_eps: added to the variance; 0 for torchvision's first COCO detection weights.
        width: channels of conv1 and of conv2_x's 3x3 convs, 64 in the paper; each later stage has twice as many.
        frozen_stages: 0 trains everything, 1 freezes conv1, 2 also conv2_x (the papers' choice), ... 5 all.
    """

    norms_follow_convs = True  # conv1, bn1; see detlab.tensors.norms.fold_norms

    def __init__(
        self,
        *,
        depth: Count,
        weights: str | None = None,
        norm: NormName = "bn",
        norm_eps: NonNegative = 1e-5,
        width: Count = 64,
        frozen_stages: Frozen = 0,
    ) -> None:
        super().__init__(weights=weights, norm=norm, frozen_stages=frozen_stages)
        if depth not in DEPTHS:
            raise ValueError(f"model.backbone.depth={depth} is not a ResNet; use one of {DEPTHS}.")
        name = f"resnet{depth}"
        if weights is not None and width != PAPER_WIDTH:
            raise WeightsError(
                f"model.backbone.width={width} cannot take the weights of a network of width {PAPER_WIDTH}; use "
                f"model.backbone.weights=null, or model.backbone.width={PAPER_WIDTH}."
            )
        net = getattr(resnet, name)(norm_layer=partial(norm_layer(norm, "model.backbone.norm"), eps=norm_eps))
        if width != PAPER_WIDTH:
            rebuild(net, width)
        widths = [net.inplanes // 8 * 2**i for i in range(4)]
        self.levels = tuple(Level(s, c, 4 * 2**i) for i, (s, c) in enumerate(zip(STAGES, widths, strict=True)))
        self.tail = Tail(channels=widths[2], size=14, width=widths[3])
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.layer4: nn.Module | None = net.layer4
        if weights is not None:
            if norm == "gn":
                raise WeightsError(
                    "model.backbone.norm=gn cannot take batch-norm weights; use model.backbone.norm=frozen_bn, or "
                    "model.backbone.weights=null."
                )
            state = load_weights(name, weights)
            fill(self, state | {"mean": self.mean, "std": self.std}, "model.backbone.weights")
        self.reads: tuple[str, ...] = STAGES
        self.freeze()

    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) in order of depth, without removed stages."""
        rows = [("stem", nn.ModuleList([self.conv1, self.bn1]))]
        layers = [self.layer1, self.layer2, self.layer3, self.layer4]
        return rows + [(s, m) for s, m in zip(STAGES, layers, strict=True) if m is not None]

    def take_tail(self) -> nn.Module:
        """conv5_x and the average pool: [N, C4, 14, 14] -> [N, C5]."""
        if self.layer4 is None:
            raise ValueError("The backbone has given conv5 away already; one RoI head can have it.")
        tail = nn.Sequential(self.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.layer4 = None
        return tail.requires_grad_(True)  # now part of the head: frozen_stages does not apply

    def keep(self, names: Iterable[str]) -> None:
        """Remove every stage behind the deepest of `names`."""
        self.reads = tuple(sorted(names))
        for i, attribute in enumerate(("layer1", "layer2", "layer3", "layer4")):
            if STAGES[i] > self.reads[-1]:
                setattr(self, attribute, None)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] -> {level: [B, C, h, w]} for the levels that are read."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = {}
        for name, module in self.stages()[1:]:
            x = module(x)
            if name in self.reads:
                maps[name] = x
        return maps


def rebuild(net: resnet.ResNet, width: int) -> None:
    """Replace conv1 and the four stages of a network by ones of another width, initialised as torchvision does."""
    stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    block, depths = type(net.layer1[0]), [len(stage) for stage in stages]
    net.inplanes = width
    net.conv1, net.bn1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), net._norm_layer(width)
    for i, depth in enumerate(depths):
        setattr(net, f"layer{i + 1}", net._make_layer(block, width * 2**i, depth, stride=1 if i == 0 else 2))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
