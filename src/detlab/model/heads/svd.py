"""Truncated SVD of fully connected layers, for faster testing (Fast R-CNN section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def truncate_svd(body: nn.Sequential, ranks: Sequence[int]) -> nn.Sequential:
    """A RoI head's body with its first fully connected layers replaced by two smaller ones each.

    W = U S V^T becomes S V^T without bias and U with the layer's own bias, with the `rank` largest singular values.

    Args:
        body: of a `RoIHead`; it is not changed.
        ranks: of its linear layers in order (Fast R-CNN: 1024 for fc6, 256 for fc7).

    Raises:
        ValueError: more ranks than layers, or a rank above the smaller side of its layer's weight.
    """
    linear = [module for module in body if isinstance(module, nn.Linear)]
    if len(ranks) > len(linear):
        raise ValueError(f"ranks={list(ranks)} names {len(ranks)} layers, but the head has {len(linear)}; give fewer.")
    swapped = {id(layer): _split(layer, rank) for layer, rank in zip(linear, ranks, strict=False)}
    return nn.Sequential(*(part for module in body for part in swapped.get(id(module), [module])))


def _split(layer: nn.Linear, rank: int) -> list[nn.Module]:
    most = min(layer.weight.shape)
    if not 1 <= rank <= most:
        raise ValueError(f"rank {rank} of a layer of {tuple(layer.weight.shape)} must lie between 1 and {most}.")
    u, s, vt = torch.linalg.svd(layer.weight.float(), full_matrices=False)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features)
    first.weight.copy_(s[:rank, None] * vt[:rank])
    second.weight.copy_(u[:, :rank])
    second.bias.copy_(layer.bias)
    return [part.to(layer.weight) for part in (first, second)]
