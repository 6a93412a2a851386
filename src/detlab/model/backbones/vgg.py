"""VGG-16 (Very Deep Convolutional Networks, configuration D), torchvision's layers.

C2 = conv3_3, C3 = conv4_3, C4 = conv5_3, C5 = pool5, pooled in ceil mode so that a map is ceil(side / stride).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from detlab.model.backbones.backbone import STAGES, Backbone, Frozen, Tail
from detlab.model.backbones.weights import WeightsError, fill, load_weights
from detlab.ranges import BelowOne, OneOf
from detlab.tensors.norms import NORMS, norm_layer
from detlab.tensors.structures import Level

FC_WIDTH = 4096  # fc6 and fc7
FC_SIDE = 7  # fc6 reads 512 x 7 x 7


class VGG16(Backbone):
    """Maps C2-C5 of VGG-16.

    Args:
        weights: null for random weights, "imagenet", or the path of a torchvision state dict.
        norm: none (the paper), or bn, frozen_bn, sync_bn, gn after every conv.
        frozen_stages: 0 trains everything, 1 freezes conv1, 2 also conv2 (the papers' choice), 3 also conv3 ...
        dropout: share of fc6's and fc7's outputs dropped, where a RoI head takes them.
    """

    def __init__(
        self,
        *,
        weights: str | None = None,
        norm: Annotated[str, OneOf(("none", *NORMS))] = "none",
        frozen_stages: Frozen = 0,
        dropout: BelowOne = 0.5,
    ) -> None:
        super().__init__(weights=weights, norm=norm, frozen_stages=frozen_stages)
        features = make_layers(cfgs["D"], batch_norm=norm != "none")
        self.features = _with_norm(features, norm)
        for module in self.features:
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        pools = [i for i, module in enumerate(self.features) if isinstance(module, nn.MaxPool2d)]
        # A stage ends just before the next pool; C5 is the pool itself.
        self._ends = {"C2": pools[2], "C3": pools[3], "C4": pools[4], "C5": pools[4] + 1}
        self._bounds = [0, pools[0], pools[1], pools[2], pools[3], pools[4], pools[4] + 1]
        self.levels = tuple(
            Level(s, c, 4 * 2**i) for i, (s, c) in enumerate(zip(STAGES, (256, 512, 512, 512), strict=True))
        )
        self.tail = Tail(channels=512, size=FC_SIDE, width=FC_WIDTH)
        self.dropout = dropout
        self._classifier: dict[str, Tensor] = {}
        if weights is not None:
            if norm == "gn":
                raise WeightsError(
                    "model.backbone.norm=gn cannot take pretrained weights; use model.backbone.norm=none, or "
                    "model.backbone.weights=null."
                )
            state = load_weights("vgg16" if norm == "none" else "vgg16_bn", weights)
            inner = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            fill(self.features, inner, "model.backbone.weights")
            self._classifier = {k: v for k, v in state.items() if k.startswith("classifier.")}
        self.reads: tuple[str, ...] = STAGES
        self.freeze()

    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) of conv1 .. conv5 in order of depth, without removed ones."""
        names = ("conv1", "conv2", "conv3", "conv4", "conv5")
        spans = zip(names, self._bounds[:5], self._bounds[1:6], strict=True)
        return [(n, self.features[a:b]) for n, a, b in spans if a < len(self.features)]

    def take_tail(self) -> nn.Module:
        """fc6 and fc7 with dropout: [N, 512, 7, 7] -> [N, 4096]; pretrained where the weights hold them."""
        fc6 = nn.Linear(512 * FC_SIDE * FC_SIDE, FC_WIDTH)
        fc7 = nn.Linear(FC_WIDTH, FC_WIDTH)
        for layer, name in ((fc6, "classifier.0"), (fc7, "classifier.3")):
            if f"{name}.weight" in self._classifier:
                fill(
                    layer,
                    {k: self._classifier[f"{name}.{k}"] for k in ("weight", "bias")},
                    "model.backbone.weights",
                )
            else:
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)
        self._classifier = {}
        layers: list[nn.Module] = [nn.Flatten()]
        for layer in (fc6, fc7):
            layers += [layer, nn.ReLU(inplace=True), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers)

    @property
    def fc_weights(self) -> dict[str, Tensor]:
        """Pretrained weights of fc6 and fc7 by name; empty for random weights."""
        places = {"fc6": "classifier.0", "fc7": "classifier.3"}
        leaves = [(fc, place, leaf) for fc, place in places.items() for leaf in ("weight", "bias")]
        return {
            f"{fc}.{leaf}": self._classifier[f"{place}.{leaf}"]
            for fc, place, leaf in leaves
            if f"{place}.{leaf}" in self._classifier
        }

    def keep(self, names: Iterable[str]) -> None:
        """Remove every layer behind the deepest of `names`."""
        self.reads = tuple(sorted(names))
        self.features = self.features[: self._ends[self.reads[-1]]]
        self._classifier = {}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] -> {level: [B, C, h, w]} for the levels that are read."""
        maps = {}
        ends = {self._ends[name]: name for name in self.reads}
        for i, module in enumerate(self.features, start=1):
            x = module(x)
            if i in ends:
                maps[ends[i]] = x
        return maps


def _with_norm(features: nn.Sequential, norm: str) -> nn.Sequential:
    """Replace the batch norms of torchvision's layers by the chosen norm."""
    if norm in ("none", "bn"):
        return features
    layer = norm_layer(norm, "model.backbone.norm")
    swap = [layer(m.num_features) if isinstance(m, nn.BatchNorm2d) else m for m in features]
    return nn.Sequential(*swap)
