"""Box coding: offsets between a reference box and a target (R-CNN appendix C; the same in every later paper).

tx = (gx - px) / pw, ty = (gy - py) / ph, tw = ln(gw / pw), th = ln(gh / ph), each times a weight.

YOLO's coders place a centre within the cell of its map position. Their references [..., 8] are an anchor and that cell,
xyxy each (`detlab.model.anchors.AnchorGenerator.with_cells`). Code that needs the anchor only takes the first four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from detlab.ranges import Positive, Size
from detlab.tensors.boxes import at_least_float32

MAX_LOG_RATIO = math.log(1000.0 / 16)  # Detectron: a box grows at most 62.5-fold in one decode
SMALLEST_SIDE = 1e-4  # px; padded rows have no area and must not give infinities


class BoxCoder(nn.Module):
    """Encodes boxes against references and decodes offsets, in float32 at least.

    Attributes:
        reads_cells: whether references must hold the cell beside the anchor.
        logits: whether the first two outputs are logits of shares of the cell.

    Args:
        weights: factors of (tx, ty, tw, th); (10, 10, 5, 5) equals SSD's variances (0.1, 0.1, 0.2, 0.2).
        clip: upper bound of decoded tw and th after division by the weight; null for none.
    """

    reads_cells = False
    logits = False

    def __init__(
        self,
        *,
        weights: Annotated[Sequence[Positive], Size(4, 4)] = (1.0, 1.0, 1.0, 1.0),
        clip: Positive | None = MAX_LOG_RATIO,
    ) -> None:
        super().__init__()
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(f"model.coder.weights needs four positive numbers; got {list(weights)}.")
        self.weights, self.clip = tuple(float(w) for w in weights), clip

    def offsets(self, deltas: Tensor) -> Tensor:
        """Network outputs [..., 4] in the form of encoded targets, for losses; here unchanged."""
        return deltas

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Offsets [..., 4] that take references [..., 4 or 8] to boxes [..., 4] (px, xyxy; broadcast)."""
        px, py, pw, ph = _centres(at_least_float32(references[..., :4]))
        gx, gy, gw, gh = _centres(at_least_float32(boxes))
        wx, wy, ww, wh = self.weights
        deltas = (
            wx * (gx - px) / pw,
            wy * (gy - py) / ph,
            ww * torch.log(gw / pw),
            wh * torch.log(gh / ph),
        )
        return torch.stack(deltas, dim=-1)

    def decode(self, references: Tensor, deltas: Tensor) -> Tensor:
        """Boxes [..., 4] (px, xyxy, float32 or float64) from references [..., 4 or 8] and offsets [..., 4]."""
        px, py, pw, ph = _centres(at_least_float32(references[..., :4]))
        tx, ty, tw, th = at_least_float32(deltas).unbind(-1)
        wx, wy, ww, wh = self.weights
        tw, th = tw / ww, th / wh
        if self.clip is not None:
            tw, th = tw.clamp(max=self.clip), th.clamp(max=self.clip)
        cx, cy = px + tx / wx * pw, py + ty / wy * ph
        half_w, half_h = 0.5 * pw * tw.exp(), 0.5 * ph * th.exp()
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


class DirectCoder(BoxCoder):
    """Direct location (YOLO9000 section 2): the centre is a share of the cell, the sides are coded as in BoxCoder.

    x = cell x + sigmoid(tx) * cell width, w = anchor width * e^tw. The outputs for x and y are logits; `encode` gives
    the shares themselves, finite also on the cell's border.

    Args:
        clip: upper bound of decoded tw and th; null for none (darknet).
    """

    reads_cells = True
    logits = True

    def __init__(self, *, clip: Positive | None = MAX_LOG_RATIO) -> None:
        super().__init__(clip=clip)

    def offsets(self, deltas: Tensor) -> Tensor:
        """Outputs [..., 4] in the form of encoded targets: shares of the cell in 0..1, logarithms of sides."""
        return torch.cat([deltas[..., :2].sigmoid(), deltas[..., 2:]], dim=-1)

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Shares of the cell and logarithms of sides [..., 4] of boxes [..., 4] (px, xyxy)."""
        _, _, aw, ah = _centres(at_least_float32(references[..., :4]))
        gx, gy, gw, gh = _centres(at_least_float32(boxes))
        cx, cy, cw, ch = _corners(at_least_float32(references[..., 4:]))
        return torch.stack([(gx - cx) / cw, (gy - cy) / ch, torch.log(gw / aw), torch.log(gh / ah)], dim=-1)

    def decode(self, references: Tensor, deltas: Tensor) -> Tensor:
        """Boxes [..., 4] (px, xyxy) from references [..., 8] and outputs [..., 4] (broadcast)."""
        _, _, aw, ah = _centres(at_least_float32(references[..., :4]))
        tx, ty, tw, th = self.offsets(at_least_float32(deltas)).unbind(-1)
        if self.clip is not None:
            tw, th = tw.clamp(max=self.clip), th.clamp(max=self.clip)
        return _in_cell(at_least_float32(references[..., 4:]), tx, ty, aw * tw.exp(), ah * th.exp())


class CellCoder(BoxCoder):
    """YOLOv1's boxes: the centre as a share of the cell, the sides as squares of the outputs times the anchor's sides.

    x = cell x + tx * cell width, w = anchor width * tw^2; the paper's anchor is the whole image. The outputs have no
    activation; a negative tw gives the same box as its absolute value.
    """

    reads_cells = True

    def __init__(self) -> None:
        super().__init__(clip=None)

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Shares of the cell and roots of the shares of the anchor's sides [..., 4] of boxes [..., 4] (px, xyxy)."""
        _, _, aw, ah = _centres(at_least_float32(references[..., :4]))
        gx, gy, gw, gh = _centres(at_least_float32(boxes))
        cx, cy, cw, ch = _corners(at_least_float32(references[..., 4:]))
        return torch.stack([(gx - cx) / cw, (gy - cy) / ch, (gw / aw).sqrt(), (gh / ah).sqrt()], dim=-1)

    def decode(self, references: Tensor, deltas: Tensor) -> Tensor:
        """Boxes [..., 4] (px, xyxy) from references [..., 8] and outputs [..., 4] (broadcast)."""
        _, _, aw, ah = _centres(at_least_float32(references[..., :4]))
        tx, ty, tw, th = at_least_float32(deltas).unbind(-1)
        return _in_cell(at_least_float32(references[..., 4:]), tx, ty, aw * tw.square(), ah * th.square())


def _in_cell(cells: Tensor, x: Tensor, y: Tensor, w: Tensor, h: Tensor) -> Tensor:
    """Boxes [..., 4] of sides w and h (px), centred at shares x and y [...] of cells [..., 4]."""
    cx, cy, cw, ch = _corners(cells)
    gx, gy = cx + x * cw, cy + y * ch
    return torch.stack([gx - 0.5 * w, gy - 0.5 * h, gx + 0.5 * w, gy + 0.5 * h], dim=-1)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width, height of boxes [..., 4]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x1, y1, x2 - x1, y2 - y1


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width, height of boxes [..., 4], the sides at least SMALLEST_SIDE."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1).clamp(min=SMALLEST_SIDE), (y2 - y1).clamp(min=SMALLEST_SIDE)
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h
