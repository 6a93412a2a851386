"""Predictors of SSD and RefineDet: two convs on every map, with weights of their own (SSD section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detlab.model.heads.dense import as_rows
from detlab.model.losses import ClassificationLoss
from detlab.ranges import OddCount, OpenFraction
from detlab.tensors.convs import SparseConv2d
from detlab.tensors.structures import Level, Prediction


class PerLevelHead(nn.Module):
    """One conv for the classes and one for the boxes of each level; the levels may differ in channels and anchors.

    Args:
        levels: maps it reads.
        num_anchors: anchors per location of each level.
        cls_loss: gives the number of outputs per anchor and the bias of a prior.
        num_classes: K.
        kernel: side of the convs.
        prior: foreground probability of the untrained head; null leaves the bias 0 (heads that mine negatives).
    """

    reads = "maps"
    one_for_all_levels = False

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_anchors: Sequence[int],
        cls_loss: ClassificationLoss,
        num_classes: int,
        kernel: OddCount = 3,
        prior: OpenFraction | None = None,
    ) -> None:
        super().__init__()
        self.outputs = cls_loss.outputs(num_classes)
        self.level_names = [level.name for level in levels]
        pairs = list(zip(levels, num_anchors, strict=True))
        cls = {v.name: SparseConv2d(v.channels, n * self.outputs, kernel) for v, n in pairs}
        box = {v.name: SparseConv2d(v.channels, n * 4, kernel) for v, n in pairs}
        self.cls, self.box = nn.ModuleDict(cls), nn.ModuleDict(box)
        for conv in (*cls.values(), *box.values()):
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for conv, (_, count) in zip(cls.values(), pairs, strict=True):
            if prior is not None and conv.bias is not None:
                with torch.no_grad():
                    conv.bias.copy_(cls_loss.prior_bias(prior, num_classes).repeat(count))

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Maps {level: [B, C, h, w]} -> logits [B, A, O], deltas [B, A, 4]; rows by level, row, column, anchor."""
        logits = [as_rows(self.cls[name](features[name]), self.outputs) for name in self.level_names]
        deltas = [as_rows(self.box[name](features[name]), 4) for name in self.level_names]
        return Prediction(torch.cat(logits, dim=1), torch.cat(deltas, dim=1))
