"""The conv of the Darknet networks: convolution, batch norm, leaky ReLU of slope 0.1."""

from __future__ import annotations

from torch import nn

from detlab.tensors.norms import norm_layer

SLOPE = 0.1  # of the leaky ReLU below zero
MOMENTUM = 0.01  # darknet keeps 0.99 of its running statistics


def leaky_conv(
    entry: int,
    width: int,
    kernel: int,
    *,
    stride: int = 1,
    norm: str = "bn",
    momentum: float = MOMENTUM,
    option: str = "model.neck",
) -> nn.Sequential:
    """Conv padded by half its kernel, norm, leaky ReLU: [B, entry, h, w] -> [B, width, ceil(h / stride), ...].

    Args:
        entry, width: channels.
        norm: bn, frozen_bn, sync_bn, gn, or none for a conv with bias.
        momentum: weight of a batch in the running statistics of a batch norm.
        option: the config node that holds `norm`, for the message.

    Raises:
        ValueError: an unknown norm.
    """
    bare = norm == "none"
    conv = nn.Conv2d(entry, width, kernel, stride=stride, padding=kernel // 2, bias=bare)
    nn.init.kaiming_normal_(conv.weight)  # as in darknet: standard deviation sqrt(2 / (k * k * entry))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers: list[nn.Module] = [conv]
    if not bare:
        layer = norm_layer(norm, f"{option}.norm")(width)
        if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
            layer.momentum = momentum
        layers.append(layer)
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE, inplace=True))
