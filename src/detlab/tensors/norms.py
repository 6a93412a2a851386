"""Normalisation layers by the names used in configs (bn, frozen_bn, sync_bn, gn), and networks made for prediction:
norms folded into convs, weights cast once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from detlab.ranges import OneOf
from detlab.tensors.convs import SmallMapConv2d

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

NormName = Annotated[str, OneOf(tuple(NORMS))]
LeakyNorm = Annotated[
    str, OneOf(("none", "bn", "sync_bn", "gn"))
]  # of a conv with a leaky ReLU; none: no norm, but a bias
LayerNorm = Annotated[str, OneOf(("bn", "sync_bn", "gn"))]  # of new layers, which have no statistics to freeze

FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)  # linear once their statistics are fixed
IN_ORDER = (nn.Sequential.forward, BasicBlock.forward, Bottleneck.forward)  # run a norm right after the conv before it
CAST = (nn.Conv2d.forward, SmallMapConv2d.forward, nn.ConvTranspose2d.forward, nn.Linear.forward)
Module = TypeVar("Module", bound=nn.Module)


def norm_layer(name: str, option: str) -> Callable[..., nn.Module]:
    """The layer class for a config value.

    Raises:
        ValueError: an unknown name; the message names the config key `option`.
    """
    if name not in NORMS:
        raise ValueError(f"{option}={name} is not known; use one of {', '.join(NORMS)}.")
    return NORMS[name]


@torch.no_grad()
def fold_norms(module: Module) -> Module:
    """Fold batch norms into the convs before them, in place, for a module that will not be trained again.

    A norm is folded only where it is known to run right after the child before it: in `nn.Sequential`, in torchvision's
    residual blocks and in modules that set `norms_follow_convs`. Outputs equal those of evaluation mode up to rounding;
    the state dict changes.
    """
    parents = Counter(id(child) for parent in module.modules() for child in parent.children())
    for parent in module.modules():
        if type(parent).forward not in IN_ORDER and not getattr(parent, "norms_follow_convs", False):
            continue
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            plain = type(conv).forward in (nn.Conv2d.forward, SmallMapConv2d.forward) and type(norm) in FOLDED
            if plain and norm.running_mean is not None and parents[id(conv)] == parents[id(norm)] == 1:
                _fold(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
                setattr(parent, name, nn.Identity())
    return module.eval()


@torch.no_grad()
def cast_weights(module: Module, dtype: torch.dtype) -> Module:
    """Cast the weights and biases of convs and linear layers in place, once instead of at every call.

    For a module that runs under autocast to `dtype` only, and will not be trained again; outputs are the same bits.
    Norms, buffers, float64 and parameters that another kind of layer also has stay.
    """
    owners: Counter[int] = Counter()
    casting: Counter[int] = Counter()
    for layer in module.modules():
        own = [id(parameter) for parameter in layer.parameters(recurse=False)]
        owners.update(own)
        casting.update(own if type(layer).forward in CAST else ())
    for parameter in module.parameters():
        if parameter.dtype == torch.float32 and owners[id(parameter)] == casting[id(parameter)]:
            parameter.data = parameter.data.to(dtype)
    return module


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a batch norm in evaluation mode into the conv before it; FrozenBatchNorm2d has the same tensors."""
    assert norm.running_mean is not None  # checked by the caller
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
