"""Normalisation layers by the names used in configs: bn, frozen_bn, sync_bn, gn; and how to do without them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
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

FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)  # linear once their statistics are fixed
Module = TypeVar("Module", bound=nn.Module)


def norm_layer(name: str, option: str) -> Callable[..., nn.Module]:
    """The layer class for a config value; `option` is the config key, for the message."""
    if name not in NORMS:
        raise ValueError(f"{option}={name} is not known; use one of {', '.join(NORMS)}.")
    return NORMS[name]


@torch.no_grad()
def fold_norms(module: Module) -> Module:
    """Multiply the batch norms of a module that will not be trained again into the convs before them, in place.

    A norm belongs to the conv that is the child before it. The outputs are those of evaluation mode but for rounding;
    the state dict is another one.
    """
    for parent in module.modules():
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FOLDED):
                statistics = norm.running_mean, norm.running_var, norm.eps
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, *statistics, norm.weight, norm.bias
                )
                setattr(parent, name, nn.Identity())
    return module.eval()
