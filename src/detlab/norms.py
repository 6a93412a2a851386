"""Normalisation layers by the names used in configs: bn, frozen_bn, sync_bn, gn."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

GROUPS = 32  # Group Normalization, table 3: 32 groups; fewer where 32 does not divide the channels


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or the largest power of two below that divides `channels`."""
    groups = GROUPS
    while channels % groups:
        groups //= 2
    return nn.GroupNorm(groups, channels, eps)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "frozen_bn": FrozenBatchNorm2d,
    "sync_bn": nn.SyncBatchNorm,
    "gn": group_norm,
}


def norm_layer(name: str, option: str) -> Callable[..., nn.Module]:
    """The layer class for a config value; `option` is the config key, for the message."""
    if name not in NORMS:
        raise ValueError(f"{option}={name} is not known; use one of {', '.join(NORMS)}.")
    return NORMS[name]
