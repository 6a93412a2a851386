"""Dense head: classification and box subnets shared by all levels (RPN; RetinaNet section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from detlab.model.losses import ClassificationLoss
from detlab.ranges import Count, Layers, OddCount, OpenFraction, Range
from detlab.tensors.convs import SparseConv2d
from detlab.tensors.norms import LayerNorm, norm_layer
from detlab.tensors.structures import Level, Prediction


class DenseHead(nn.Module):
    """3x3 conv towers and two 3x3 or 1x1 siblings, one set of weights for all levels.

    Where the levels differ in channels, those that differ from the head's width get a 1x1 stem; levels of one
    common width go straight into the first conv.

    Args:
        levels: maps it reads.
        num_anchors: anchors per location of each level; they must be equal.
        cls_loss: gives the number of outputs per anchor and the bias of a prior.
        num_classes: K.
        width: channels of the towers; null takes the levels' (the first level's, where they differ).
        depth: 3x3 convs in a tower (RetinaNet 4, RPN 1).
        shared: one tower for both siblings (RPN) instead of one each.
        predictor_kernel: 1 (RPN) or 3 (RetinaNet).
        norm: null, gn, bn, ... after each tower conv.
        prior: foreground probability of the untrained head; null leaves the bias 0 (heads that sample).
        init_std: standard deviation of the convs' weights.
    """

    reads = "maps"
    one_for_all_levels = True  # one set of weights: every level needs the same number of anchors per location

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_anchors: Sequence[int],
        cls_loss: ClassificationLoss,
        num_classes: int,
        width: Count | None = 256,
        depth: Layers = 4,
        shared: bool = False,
        predictor_kernel: OddCount = 3,
        norm: LayerNorm | None = None,
        prior: OpenFraction | None = 0.01,
        init_std: Annotated[float, Range(0, 10, open_low=True)] = 0.01,
    ) -> None:
        super().__init__()
        if len(set(num_anchors)) != 1:
            raise ValueError(
                f"model.head is shared by the levels and needs equal anchors on each, but model.anchors deals "
                f"{list(num_anchors)}; give sizes that divide by {len(num_anchors)} levels."
            )
        channels = {level.channels for level in levels}
        width = width or levels[0].channels
        entry = width if len(channels) > 1 else levels[0].channels
        differ = [level for level in levels if level.channels != width] if len(channels) > 1 else []
        stems = {level.name: nn.Conv2d(level.channels, width, 1) for level in differ}
        self.stems = nn.ModuleDict(stems)
        self.outputs = cls_loss.outputs(num_classes)
        self.level_names = [level.name for level in levels]
        self.cls_tower = _tower(entry, width, depth, norm)
        self.box_tower = None if shared else _tower(entry, width, depth, norm)
        last = width if depth else entry
        self.cls = SparseConv2d(last, num_anchors[0] * self.outputs, predictor_kernel)
        self.box = SparseConv2d(last, num_anchors[0] * 4, predictor_kernel)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for stem in stems.values():
            nn.init.kaiming_uniform_(stem.weight, a=1)
        if prior is not None and self.cls.bias is not None:
            with torch.no_grad():
                self.cls.bias.copy_(cls_loss.prior_bias(prior, num_classes).repeat(num_anchors[0]))

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Maps {level: [B, C, h, w]} -> logits [B, A, O], deltas [B, A, 4]; rows by level, row, column, anchor."""
        maps = [self.stems[n](features[n]) if n in self.stems else features[n] for n in self.level_names]
        cls = _over(self.cls_tower, maps)
        box = cls if self.box_tower is None else _over(self.box_tower, maps)
        logits = [as_rows(x, self.outputs) for x in self.cls.over(cls)]
        deltas = [as_rows(x, 4) for x in self.box.over(box)]
        return Prediction(torch.cat(logits, dim=1), torch.cat(deltas, dim=1))


def _over(tower: nn.Sequential, maps: list[Tensor]) -> list[Tensor]:
    """The tower's layers on every level's map."""
    for layer in tower:
        maps = layer.over(maps) if isinstance(layer, SparseConv2d) else [layer(x) for x in maps]
    return maps


def _tower(entry: int, width: int, depth: int, norm: str | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(SparseConv2d(entry if i == 0 else width, width, 3, bias=norm is None))
        if norm is not None:
            layers.append(norm_layer(norm, "model.head.norm")(width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def as_rows(x: Tensor, outputs: int) -> Tensor:
    """[B, anchors * outputs, h, w] -> [B, h * w * anchors, outputs]; a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, outputs)
