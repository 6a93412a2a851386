"""Convolutions with a faster backward pass on CPUs: one matrix product over gathered locations.

It helps in three cases:

A sampled loss leaves most of a dense head's outputs without gradient: an RPN learns from 256 anchors of an image, SSD
from its positives and three times as many negatives, a box branch from the positives only. torch's backward pass
multiplies these zeros all the same: 12 % of all products of a training step of Faster R-CNN R50-FPN at 320 px, 10 % of
RetinaNet's and 7 % of SSD300's.

On small maps there are few products, and copies take most of the time: torch's backward pass copies the gradient of the
weights three times between memory layouts, 9 MB for each conv of conv5, whatever the size of the image.

On large maps of many channels without AVX-512, torch's backward pass takes a fifth to a third longer in channels-last
than on channel-major copies, copying included, while its forward pass is faster in channels-last.

The number of rows with a gradient is read on the host, and a GPU would have to wait for it. GPUs and compiled or
exported graphs therefore use torch's own pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d

from detlab.tensors.structures import fixed_shapes

WIDE = 64  # output channels above which the product costs more than the gather
DENSE_FROM = {True: 0.5, False: 0.2}  # by "is it WIDE": share of locations from which torch's dense pass is faster
LEAST = 8  # channels that a 1x1 conv with a stride may read, see `refuse_narrow_strides`
MANY = 2**27  # locations x channels in x channels out from which channel-major copies pay without AVX-512
FEW = 3  # output channels per location from which all locations are gathered: copying weights then dominates


class SmallMapConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with an odd kernel and padding kernel // 2: same values and gradients, no second derivatives.

    It gathers all locations where there are at most a third as many as output channels.
    """

    sampled = False  # whether the loss may leave most locations without gradient

    def __init__(self, entry: int, width: int, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(entry, width, kernel, stride=stride, padding=kernel // 2, bias=bias)

    @classmethod
    def over_weights_of(cls, conv: nn.Conv2d) -> SmallMapConv2d:
        """A conv that shares the parameters of `conv` and is in the same training mode."""
        with torch.device("meta"):  # draws no random numbers for weights that are replaced at once
            made = cls(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size[0],
                stride=conv.stride[0],
                bias=conv.bias is not None,
            )
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, O, ceil(h / stride), ceil(w / stride)]."""
        return self.over([x])[0]

    def over(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Apply the conv to every level's map [B, C, h, w]; under autocast the weights are cast once for all maps."""
        if not any(self._gathers(x) for x in maps):
            return [super(SmallMapConv2d, self).forward(x) for x in maps]
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu") and weight.dtype != torch.float64:  # autocast skips float64
            dtype = torch.get_autocast_dtype("cpu")
            maps = [x.to(dtype) for x in maps]
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        return [_Gathering.apply(x, weight, bias, self.stride[0], self.sampled) for x in maps]

    def _gathers(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or fixed_shapes(x) or not torch.is_grad_enabled():
            return False
        locations = len(x) * x.shape[2] * x.shape[3] / self.stride[0] ** 2
        few = FEW * locations <= self.out_channels
        return self.sampled or few or _slow_in_channels_last(locations, self.weight)


class SparseConv2d(SmallMapConv2d):
    """For dense heads, whose loss may be sampled: the backward pass skips locations whose gradient is zero.

    A location is skipped only if all its channels are zero. If too few can be skipped, torch's own pass runs.
    """

    sampled = True


def gather_on_small_maps(module: nn.Module) -> None:
    """Replace the plain convs with kernels above 1x1 inside a module by `SmallMapConv2d` with the same parameters.

    Names in the state dict do not change. A conv with hooks is left alone, since the replacement would lose them.
    """
    made: dict[nn.Conv2d, SmallMapConv2d] = {}  # a conv used in two places gets one replacement
    for parent in list(module.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is nn.Conv2d and _fits(conv):
                if conv not in made:
                    made[conv] = SmallMapConv2d.over_weights_of(conv)
                setattr(parent, name, made[conv])


def refuse_narrow_strides(module: nn.Module) -> None:
    """Refuse 1x1 convs with a stride over fewer than 8 channels, such as the shortcuts of a very narrow ResNet.

    On CPUs with AVX2 but no AVX-512, the gradient of their weights writes past a buffer: wrong numbers or a crash
    (https://github.com/uxlfoundation/oneDNN/issues/6035; seen with torch 2.14).

    Raises:
        ValueError: names the first such conv.
    """
    for name, conv in module.named_modules():
        strided = isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and max(conv.stride) > 1
        if strided and conv.in_channels // conv.groups < LEAST:
            raise ValueError(
                f"{name} is a 1x1 conv with stride {conv.stride[0]} over {conv.in_channels} channels, for which torch "
                f"computes wrong gradients on some CPUs; use {LEAST} channels or more, such as "
                f"model.backbone.width={LEAST} of a ResNet."
            )


def _fits(conv: nn.Conv2d) -> bool:
    """Whether `SmallMapConv2d` can replace a conv; a 1x1 conv gains nothing, its weights have only one layout."""
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return False
    kernel = conv.kernel_size[0]
    square = conv.kernel_size == (kernel, kernel) and conv.stride == (conv.stride[0],) * 2
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return square and plain and kernel % 2 == 1 and kernel > 1 and conv.padding == (kernel // 2,) * 2


class _Gathering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, sampled: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.sampled = stride, sampled
        return conv2d(x, weight, bias, stride, weight.shape[2] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = needs = ctx.needs_input_grad[:3]
        rows = _by_location(gradient)
        live = None
        if FEW * len(rows) <= len(weight):
            live = torch.arange(len(rows))
        elif ctx.sampled:
            found = rows.abs().amax(1).nonzero()[:, 0]  # vectorised, unlike any(1)
            live = found if len(found) < DENSE_FROM[len(weight) >= WIDE] * len(rows) else None
        if live is None:
            return *_dense(gradient, x, weight, ctx.stride, needs), None, None
        rows = rows[live]  # [n, O]
        places = _windows(live, gradient.shape[2:], x.shape[2:], weight.shape[2], ctx.stride)
        by_x = _to_input(rows, places, x, weight) if needs_x else None
        by_weight = _to_weight(rows, places, x, weight) if needs_weight else None
        return by_x, by_weight, rows.sum(0) if needs_bias else None, None, None


def _dense(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    pad = weight.shape[2] // 2
    sizes = [weight.shape[0]] if needs[2] else None
    copied = _slow_in_channels_last(gradient[:, 0].numel(), weight)
    given = [part.contiguous() if copied else part for part in (gradient, x, weight)]
    by_x, by_weight, by_bias = torch.ops.aten.convolution_backward(
        *given, sizes, [stride] * 2, [pad, pad], [1, 1], False, [0, 0], 1, needs
    )
    if copied and by_x is not None:  # what comes before saved its maps in channels-last
        by_x = by_x.contiguous(memory_format=torch.channels_last)
    return by_x, by_weight, by_bias


def _slow_in_channels_last(locations: float, weight: Tensor) -> bool:
    """Whether a backward pass over so many output locations is faster on channel-major copies."""
    large = locations * weight.shape[0] * weight.shape[1] >= MANY and weight.shape[2] > 1
    return large and weight.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2"


def _by_location(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B * h * w, C]; a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _windows(live: Tensor, size: torch.Size, entry: torch.Size, kernel: int, stride: int) -> Tensor:
    """Rows of the input that each output location reads: [n, kernel^2], i + 1 for row i, 0 outside the map.

    Args:
        live: [n] indices of the output locations, over the whole batch.
        size, entry: (height, width) of the output and of the input.
    """
    (rows, columns), (h, w) = size, entry
    reach = torch.arange(kernel) - kernel // 2
    y = (live // columns % rows * stride)[:, None] + reach  # [n, kernel]
    x = (live % columns * stride)[:, None] + reach
    image = (live // (rows * columns))[:, None, None]
    inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None]
    return (((image * h + y[:, :, None]) * w + x[:, None] + 1) * inside).flatten(1)


def _to_weight(rows: Tensor, places: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weight [O, C, k, k], channels-last in memory, as a detector's weights are."""
    table = _by_location(x)
    patches = table[(places - 1).clamp(min=0)]  # [n, k * k, C]
    patches.masked_fill_((places == 0)[..., None], 0)
    product = rows.t() @ patches.flatten(1)
    k = weight.shape[2]
    return product.view(len(weight), k, k, -1).permute(0, 3, 1, 2)


def _to_input(rows: Tensor, places: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input [B, C, h, w], summed in at least float32."""
    b, channels, h, w = x.shape
    product = rows @ weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # [n, k * k * C]
    dtype = torch.promote_types(x.dtype, torch.float32)
    total = product.new_zeros(1 + b * h * w, channels, dtype=dtype)
    total.index_add_(0, places.flatten(), product.view(-1, channels).to(dtype))
    return total[1:].to(x.dtype).view(b, h, w, channels).permute(0, 3, 1, 2)
