"""Samplers choose which matched anchors enter the loss.

Random draws are a hash of (key, stage, position). They need no generator and no state, and are the same on every device
and for every split of images into batches and processes. The key holds seed, step and image id (`draw_keys`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from detlab.model.matchers import NEGATIVE, POSITIVE
from detlab.ranges import Count, Positive, Share

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as int64; splitmix64's increment
_MIX_1 = -4658895280553007687  # splitmix64's two multipliers
_MIX_2 = -7723592293110705685


def mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 tensors (products wrap): well-spread bits from related numbers."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def draw(keys: Tensor, stage: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), [B, count] float32, from int64 keys [B] and the stage's number."""
    rows = mix(keys * _GOLDEN + stage + 1)[:, None]
    columns = torch.arange(1, count + 1, device=keys.device)[None] * _GOLDEN
    return ((mix(rows + columns) >> 40) & 0xFFFFFF).float() / 2**24


class Sampler(Protocol):
    """Interface of samplers, which are `nn.Module`s."""

    @property
    def size(self) -> int | None:
        """Most rows chosen per image; None for no bound."""

    def forward(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """state [B, A] int8, losses [B, A], draws [B, A] in [0, 1) -> the chosen ones, [B, A] bool."""

    def __call__(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """As `forward`; `nn.Module` has it."""


class AllSampler(nn.Module):
    """Every anchor that is positive or negative (RetinaNet)."""

    size: int | None = None  # no bound per image

    def forward(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """state [B, A] int8, losses [B, A], draws [B, A] in [0, 1) -> the chosen ones, [B, A] bool."""
        return state >= NEGATIVE


class RandomSampler(nn.Module):
    """A fixed number per image at random, filled with negatives (Faster R-CNN section 3.1.3).

    Args:
        size: anchors or RoIs per image.
        positive_fraction: largest share of positives; int(size * share), rounded down as torchvision does.
    """

    def __init__(self, *, size: Count, positive_fraction: Share) -> None:
        super().__init__()
        if size < 1 or not 0 < positive_fraction <= 1:
            raise ValueError(
                f"model.sampler needs size >= 1 and 0 < positive_fraction <= 1; got size={size}, "
                f"positive_fraction={positive_fraction}."
            )
        self.size, self.positive_fraction = size, positive_fraction

    def forward(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """state [B, A] int8, losses [B, A], draws [B, A] in [0, 1) -> the chosen ones, [B, A] bool."""
        most = max(1, int(self.size * self.positive_fraction))
        positives = _highest(state == POSITIVE, draws, most)
        room = self.size - positives.sum(dim=1)
        return positives | _highest(state == NEGATIVE, draws, self.size, room)


class HardNegativeSampler(nn.Module):
    """All positives and the negatives of highest loss, at most `ratio` per positive in each image (SSD 2.2)."""

    ranks_by_loss = True
    by_positives = True  # an image without positives gives no negatives

    size: int | None = None

    def __init__(self, *, ratio: Positive) -> None:
        super().__init__()
        if ratio <= 0:
            raise ValueError(f"model.sampler.ratio must be positive; got {ratio}.")
        self.ratio = ratio

    def forward(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """state [B, A] int8, losses [B, A], draws [B, A] in [0, 1) -> the chosen ones, [B, A] bool."""
        positives = state == POSITIVE
        room = (positives.sum(dim=1) * self.ratio).long()
        order = torch.where(state == NEGATIVE, losses.detach(), -torch.inf).argsort(dim=1, descending=True)
        rank = torch.empty_like(order)
        rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        return positives | ((state == NEGATIVE) & (rank < room[:, None]))


class OHEMSampler(nn.Module):
    """The anchors of highest loss in each image, positive or negative (OHEM, section 4; RetinaNet table 1 d).

    The paper's NMS, which keeps one of several overlapping boxes, is left out.

    Args:
        size: anchors per image.
    """

    ranks_by_loss = True

    def __init__(self, *, size: Count) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"model.sampler.size must be at least 1; got {size}.")
        self.size = size

    def forward(self, state: Tensor, losses: Tensor, draws: Tensor) -> Tensor:
        """state [B, A] int8, losses [B, A], draws [B, A] in [0, 1) -> the chosen ones, [B, A] bool."""
        return _highest(state >= NEGATIVE, losses.detach(), self.size)


def _highest(mask: Tensor, values: Tensor, most: int, room: Tensor | None = None) -> Tensor:
    """The `most` rows of mask [B, A] (and at most room [B]) with the highest values (not negative), [B, A] bool."""
    top, index = torch.where(mask, values, -1.0).topk(min(most, mask.shape[1]), dim=1)
    keep = top >= 0
    if room is not None:
        keep &= torch.arange(top.shape[1], device=top.device)[None] < room[:, None]
    return torch.zeros_like(mask).scatter_(1, index, keep)


def draw_keys(seed: int, step: int, ids: Tensor) -> Tensor:
    """[B] int64 seeds of a batch's random draws: a function of (seed, step, image id) only."""
    start = ids.new_full((), seed)  # filled on the device: copying a number to a GPU makes the host wait
    return mix(mix(mix(start + 1) + step + 1) + ids)
