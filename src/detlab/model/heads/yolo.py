"""Heads of the YOLO family: box, objectness and classes of each anchor from one conv (YOLOv2, YOLOv3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from detlab.model.heads.dense import as_rows
from detlab.model.losses import ClassificationLoss, ObjectnessLoss
from detlab.ranges import BelowOne, Count, OneOf, OpenFraction, Share, Size
from detlab.tensors.leaky import MOMENTUM, leaky_conv
from detlab.tensors.norms import LeakyNorm
from detlab.tensors.structures import Level, Prediction

BODIES = ("local", "fc")
BOX = 5  # outputs of an anchor before its classes: x, y, w, h, objectness


class YOLOHead(nn.Module):
    """A 3x3 and a 1x1 conv on every level, with weights of their own.

    Args:
        levels: maps it reads.
        num_anchors: anchors per location of each level.
        cls_loss: gives the number of outputs for the classes.
        obj_loss: gives the bias of a prior.
        num_classes: K.
        width: channels of the 3x3 convs; null: twice the map's (YOLOv3); YOLOv2: 1024.
        norm: bn, sync_bn, gn or none, of the 3x3 convs.
        norm_momentum: weight of a batch in the running statistics.
        prior: objectness of the untrained head; null leaves its bias 0.
    """

    reads = "maps"
    one_for_all_levels = False
    gives_objectness = True

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_anchors: Sequence[int],
        cls_loss: ClassificationLoss,
        obj_loss: ObjectnessLoss,
        num_classes: int,
        width: Count | None = None,
        norm: LeakyNorm = "bn",
        norm_momentum: Share = MOMENTUM,
        prior: OpenFraction | None = 0.01,
    ) -> None:
        super().__init__()
        self.outputs = BOX + cls_loss.outputs(num_classes)
        self.level_names = [level.name for level in levels]
        self.conv, self.out = nn.ModuleDict(), nn.ModuleDict()
        for level, count in zip(levels, num_anchors, strict=True):
            own = 2 * level.channels if width is None else width
            self.conv[level.name] = leaky_conv(
                level.channels, own, 3, norm=norm, momentum=norm_momentum, option="model.head"
            )
            self.out[level.name] = out = nn.Conv2d(own, count * self.outputs, 1)
            nn.init.normal_(out.weight, std=0.01)
            if out.bias is None:
                continue
            nn.init.zeros_(out.bias)
            if prior is not None:
                with torch.no_grad():
                    out.bias.view(count, -1)[:, BOX - 1] = obj_loss.prior_bias(prior)

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """Maps {level: [B, C, h, w]} -> rows by level, row, column, anchor: logits, deltas and objectness."""
        rows = [as_rows(self.out[n](self.conv[n](features[n])), self.outputs) for n in self.level_names]
        every = torch.cat(rows, dim=1)
        return Prediction(every[..., BOX:], every[..., : BOX - 1], every[..., BOX - 1])


class GridHead(nn.Module):
    """YOLOv1: predicts all cells at once from the whole map, with layers whose weights differ between places.

    Args:
        levels: the one map it reads.
        num_anchors: boxes of each cell, B.
        cls_loss, obj_loss: as for `YOLOHead`.
        num_classes: K.
        canvas: sides of the canvas that the map is made from, px: one number for a square, or [height, width].
        body: local: a 3x3 conv with weights of its own at each place (darknet's released network). fc: a fully
            connected layer (the paper).
        width: outputs of the body: channels (local), neurons (fc).
        dropout: share of the body's outputs dropped.
        prior: objectness of the untrained head.
    """

    reads = "maps"
    one_for_all_levels = False
    gives_objectness = True
    one_canvas = True  # its layers are made for one size of image

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_anchors: Sequence[int],
        cls_loss: ClassificationLoss,
        obj_loss: ObjectnessLoss,
        num_classes: int,
        canvas: Count | Annotated[Sequence[Count], Size(2, 2)],
        body: Annotated[str, OneOf(BODIES)] = "local",
        width: Count = 256,
        dropout: BelowOne = 0.5,
        prior: OpenFraction | None = None,
    ) -> None:
        super().__init__()
        if len(levels) != 1:
            raise ValueError(
                f"model.head reads one map, but model.neck gives {len(levels)}; use model/neck=yolo_grid, or "
                f"model/head=yolo."
            )
        if body not in BODIES:
            raise ValueError(f"model.head.body={body} is not known; use one of {', '.join(BODIES)}.")
        sides = (canvas, canvas) if isinstance(canvas, int) else (int(canvas[0]), int(canvas[1]))
        level, self.boxes, self.classes = levels[0], num_anchors[0], cls_loss.outputs(num_classes)
        self.canvas, self.name, self.size = sides, level.name, level.size(sides)
        cells = self.size[0] * self.size[1]
        flat = level.channels * cells
        self.body: nn.Module
        if body == "local":
            self.body = Local(level.channels, width, self.size)
        else:
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(flat, width))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width * cells if body == "local" else width, cells * (self.boxes * BOX + self.classes))
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            _, confidence, deltas = self._blocks(self.out.bias)
            deltas.copy_(torch.tensor([0.5, 0.5, 0.3, 0.3]).expand_as(deltas))  # sides start at 0.3^2 of the canvas
            if prior is not None:
                confidence.fill_(obj_loss.prior_bias(prior))

    def forward(self, features: Mapping[str, Tensor]) -> Prediction:
        """{level: [B, C, h, w]} -> rows by cell and box: logits, deltas and objectness."""
        x = features[self.name]
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"model.head is made for a canvas of {list(self.canvas)} px and a map of {list(self.size)}, but "
                f"got a map of {list(x.shape[2:])}; give images of that size, or use model/head=yolo, which takes any."
            )
        x = nn.functional.leaky_relu(self.body(x), 0.1)
        classes, confidence, deltas = self._blocks(self.out(self.dropout(x.flatten(1))))
        logits = classes[:, :, None].expand(-1, -1, self.boxes, -1).flatten(1, 2)
        return Prediction(logits, deltas, confidence)

    def _blocks(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classes [B, cells, O], confidences [B, cells * boxes] and boxes [B, cells * boxes, 4], in darknet's order."""
        cells = self.size[0] * self.size[1]
        out = out.view(-1, self.out.out_features)
        parts = out.split([cells * self.classes, cells * self.boxes, cells * self.boxes * 4], dim=1)
        return parts[0].view(-1, cells, self.classes), parts[1], parts[2].view(-1, cells * self.boxes, 4)


class Local(nn.Module):
    """A 3x3 conv whose weights differ from place to place (darknet's local layer).

    Args:
        channels, width: in and out.
        size: (rows, columns) of the map.
    """

    def __init__(self, channels: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        cells = size[0] * size[1]
        self.size = size
        self.weight = nn.Parameter(torch.empty(cells, width, channels * 9))  # of each place: [width, C, row, column]
        self.bias = nn.Parameter(torch.zeros(width, cells))
        nn.init.normal_(self.weight, std=(2 / (9 * channels)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, width, h, w]."""
        patches = nn.functional.unfold(x, 3, padding=1)  # [B, C * 9, cells]
        out = torch.bmm(patches.permute(2, 0, 1), self.weight.mT)  # an einsum fails under autocast in FLOP counts
        return (out.permute(1, 2, 0) + self.bias).reshape(x.shape[0], -1, *self.size)

    def darknet_tensors(self) -> list[Tensor]:
        """Its tensors in the order of a darknet file."""
        return [self.bias, self.weight]
