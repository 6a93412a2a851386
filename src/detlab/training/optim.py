"""Optimisers over a detector's parameter groups, with learning rates scaled by the total batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import nn

from detlab.ranges import BelowOne, Count, NonNegative, OneOf, Positive, Size

SCALINGS = ("linear", "sqrt", "none")


def sgd(
    detector: nn.Module,
    *,
    total_batch: int,
    fused: bool = False,
    lr: Positive,
    base_batch_size: Count,
    lr_scaling: Annotated[str, OneOf(SCALINGS)],
    momentum: BelowOne,
    weight_decay: NonNegative,
    decay_norm_and_bias: bool,
    backbone_lr_mult: NonNegative,
) -> torch.optim.SGD:
    """SGD with momentum over `parameter_groups`, at `effective_lr`."""
    rate = effective_lr(lr, total_batch, base_batch_size, lr_scaling)
    groups = parameter_groups(detector, rate, weight_decay, decay_norm_and_bias, backbone_lr_mult)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=fused)


def adamw(
    detector: nn.Module,
    *,
    total_batch: int,
    fused: bool = False,
    lr: Positive,
    base_batch_size: Count,
    lr_scaling: Annotated[str, OneOf(SCALINGS)],
    betas: Annotated[Sequence[BelowOne], Size(2, 2)],
    weight_decay: NonNegative,
    decay_norm_and_bias: bool,
    backbone_lr_mult: NonNegative,
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, at `effective_lr`."""
    rate = effective_lr(lr, total_batch, base_batch_size, lr_scaling)
    groups = parameter_groups(detector, rate, weight_decay, decay_norm_and_bias, backbone_lr_mult)
    first, second = betas
    return torch.optim.AdamW(groups, lr=rate, betas=(first, second), fused=fused)


def effective_lr(lr: float, total_batch: int, base_batch_size: int, scaling: str) -> float:
    """The learning rate for a total batch size.

    "linear" multiplies lr by total_batch / base_batch_size, "sqrt" by the square root of that, "none" keeps it.

    Raises:
        ValueError: the scaling is unknown.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"optim.lr_scaling={scaling} is not known; use one of {', '.join(SCALINGS)}.")
    ratio = total_batch / base_batch_size
    return lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[scaling]


def parameter_groups(
    detector: nn.Module, lr: float, weight_decay: float, decay_norm_and_bias: bool, backbone_lr_mult: float
) -> list[dict[str, Any]]:
    """Parameter groups by (backbone or not, decay or not); every trainable parameter is in exactly one.

    Parameters with one dimension are treated as norms and biases.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = decay_norm_and_bias or parameter.dim() > 1
        groups.setdefault((name.startswith("backbone."), decay), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (backbone_lr_mult if backbone else 1.0),
            "weight_decay": weight_decay if decay else 0.0,
            "name": ("backbone" if backbone else "rest") + ("" if decay else ", norm and bias"),
        }
        for (backbone, decay), parameters in groups.items()
    ]
