"""Box coding: offsets between a reference box and a target (R-CNN appendix C; the same in every later paper).

tx = (gx - px) / pw, ty = (gy - py) / ph, tw = ln(gw / pw), th = ln(gh / ph), each times a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detlab.tensors.boxes import at_least_float32

MAX_LOG_RATIO = math.log(1000.0 / 16)  # Detectron: a box grows at most 62.5-fold in one decode
SMALLEST_SIDE = 1e-4  # px; padded rows have no area and must not give infinities


class BoxCoder(nn.Module):
    """Encodes boxes against references and decodes offsets, in float32 at least.

    Args:
        weights: factors of (tx, ty, tw, th); (10, 10, 5, 5) equals SSD's variances (0.1, 0.1, 0.2, 0.2).
        clip: upper bound of decoded tw and th after division by the weight; null for none.
    """

    def __init__(self, *, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), clip: float | None = MAX_LOG_RATIO) -> None:
        super().__init__()
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(f"model.coder.weights needs four positive numbers; got {list(weights)}.")
        self.weights, self.clip = tuple(float(w) for w in weights), clip

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Offsets [..., 4] that take references [..., 4] to boxes [..., 4] (both px, xyxy; broadcast)."""
        px, py, pw, ph = _centres(at_least_float32(references))
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
        """Boxes [..., 4] (px, xyxy, float32 or float64) from references [..., 4] and offsets [..., 4] (broadcast)."""
        px, py, pw, ph = _centres(at_least_float32(references))
        tx, ty, tw, th = at_least_float32(deltas).unbind(-1)
        wx, wy, ww, wh = self.weights
        tw, th = tw / ww, th / wh
        if self.clip is not None:
            tw, th = tw.clamp(max=self.clip), th.clamp(max=self.clip)
        cx, cy = px + tx / wx * pw, py + ty / wy * ph
        half_w, half_h = 0.5 * pw * tw.exp(), 0.5 * ph * th.exp()
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width, height of boxes [..., 4], the sides at least SMALLEST_SIDE."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1).clamp(min=SMALLEST_SIDE), (y2 - y1).clamp(min=SMALLEST_SIDE)
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h
