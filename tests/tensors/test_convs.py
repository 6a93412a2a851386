"""Gathering convs against torch.nn.Conv2d: values, gradients, and what the backward pass multiplies."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detlab.tensors.convs import FEW, SmallMapConv2d, SparseConv2d, gather_on_small_maps, refuse_narrow_strides


def _pair(
    entry: int, width: int, kernel: int, *, bias: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[SparseConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    dense = nn.Conv2d(entry, width, kernel, padding=kernel // 2, bias=bias).to(dtype)
    sparse = SparseConv2d(entry, width, kernel, bias=bias).to(dtype)
    sparse.load_state_dict(dense.state_dict())
    layout = torch.channels_last
    return sparse.to(memory_format=layout), dense.to(memory_format=layout)


def _gradient(shape: tuple[int, int, int, int], places: list[tuple[int, int, int]]) -> Tensor:
    """Noise at the given (image, row, column), zero elsewhere."""
    g = torch.zeros(shape, dtype=torch.float64)
    for image, row, column in places:
        g[image, :, row, column] = torch.randn(shape[1], dtype=torch.float64)
    return g


def _gradients(conv: nn.Conv2d, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    conv(x).backward(gradient)
    found = {name: p.grad for name, p in conv.named_parameters()}
    return {"x": x.grad, **found}


CORNERS = [(0, 0, 0), (0, 14, 16), (1, 0, 16), (1, 14, 0), (1, 2, 3), (1, 2, 4)]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("width", [3, 70])  # on both sides of the width at which the threshold changes
@pytest.mark.parametrize("places", [[], CORNERS[:1], CORNERS], ids=["none", "one", "corners"])
def test_gradients_equal_those_of_a_dense_pass(kernel: int, width: int, places: list[tuple[int, int, int]]) -> None:
    sparse, dense = _pair(4, width, kernel)
    x = torch.randn(2, 4, 15, 17, dtype=torch.float64).to(memory_format=torch.channels_last)
    gradient = _gradient((2, width, 15, 17), places)
    assert torch.equal(sparse(x), dense(x))
    ours, theirs = _gradients(sparse, x, gradient), _gradients(dense, x, gradient)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)
    assert ours["weight"].is_contiguous(memory_format=torch.channels_last)  # as the weight: not copied again


def test_gradients_where_every_location_has_one() -> None:
    sparse, dense = _pair(4, 3, 3)
    x, gradient = torch.randn(2, 4, 15, 17).double(), torch.randn(2, 3, 15, 17).double()
    ours = _gradients(sparse, x, gradient)
    for name, value in _gradients(dense, x, gradient).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)


def test_one_channel_is_enough_for_a_location_to_count() -> None:
    sparse, dense = _pair(4, 3, 3)
    x, gradient = torch.randn(2, 4, 15, 17).double(), torch.zeros(2, 3, 15, 17).double()
    gradient[1, 2, 14, 16] = -1e-30
    ours, theirs = _gradients(sparse, x, gradient), _gradients(dense, x, gradient)
    assert ours["weight"].abs().max() > 0
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=0)


def test_a_gradient_that_is_not_a_number_is_not_lost() -> None:
    sparse, _ = _pair(4, 3, 3)
    gradient = torch.zeros(2, 3, 15, 17).double()
    gradient[0, 0, 2, 2] = torch.nan
    assert _gradients(sparse, torch.randn(2, 4, 15, 17).double(), gradient)["weight"].isnan().any()


def test_without_bias() -> None:
    sparse, dense = _pair(4, 3, 3, bias=False)
    x, gradient = torch.randn(2, 4, 15, 17).double(), _gradient((2, 3, 15, 17), CORNERS)
    ours, theirs = _gradients(sparse, x, gradient), _gradients(dense, x, gradient)
    torch.testing.assert_close(ours, theirs)
    assert list(ours) == ["x", "weight"]


def test_frozen_weights_and_an_input_without_gradient() -> None:
    sparse, dense = _pair(4, 3, 3)
    x, gradient = torch.randn(2, 4, 15, 17).double(), _gradient((2, 3, 15, 17), CORNERS)
    for conv in (sparse, dense):
        conv(x).backward(gradient)
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad)
    sparse, dense = _pair(4, 3, 3)
    sparse.requires_grad_(False)
    found = _gradients(sparse, x, gradient)
    torch.testing.assert_close(found["x"], _gradients(dense, x, gradient)["x"])
    assert found["weight"] is None


def test_bfloat16_is_as_near_to_the_truth_as_the_dense_pass() -> None:
    sparse, dense = _pair(64, 96, 3, dtype=torch.float32)
    exact, _ = _pair(64, 96, 3)
    x = torch.randn(2, 64, 12, 12)
    gradient = _gradient((2, 96, 12, 12), [(i, r, c) for i in (0, 1) for r in range(6) for c in range(6)])
    truth = _gradients(exact, x.double(), gradient)

    def errors(conv: nn.Conv2d) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            found = _gradients(conv, x, gradient.bfloat16())
        assert all(value.dtype == torch.float32 for value in found.values())
        return {k: float((v - truth[k]).norm() / truth[k].norm()) for k, v in found.items()}

    ours, theirs = errors(sparse), errors(dense)
    for name, error in theirs.items():
        assert ours[name] < max(1.5 * error, 2e-3), name


def test_the_backward_pass_multiplies_live_locations_alone() -> None:
    sparse, dense = _pair(8, 96, 3, dtype=torch.float32)
    x = torch.randn(1, 8, 20, 20)
    gradient = _gradient((1, 96, 20, 20), [(0, r, 5) for r in range(20)]).float()

    def products(conv: nn.Conv2d) -> int:
        y = conv(x.clone().requires_grad_())
        with FlopCounterMode(display=False) as counter:
            y.backward(gradient)
        return counter.get_total_flops()

    assert products(sparse) * 20 == products(dense)  # 20 of 400 locations


@pytest.mark.parametrize("width", [3 * FEW, 70 * FEW])
def test_small_maps_with_a_gradient_everywhere(width: int) -> None:
    sparse, dense = _pair(4, width, 3)
    x, gradient = torch.randn(2, 4, 5, 7).double(), torch.randn(2, width, 5, 7).double()
    ours = _gradients(sparse, x, gradient)
    for name, value in _gradients(dense, x, gradient).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)
    assert ours["weight"].is_contiguous(memory_format=torch.channels_last) or width < 70 * FEW


def test_where_no_one_may_wait_the_pass_is_dense() -> None:
    sparse, dense = _pair(4, 3, 3)
    x = torch.randn(1, 4, 15, 17).double()
    with torch.no_grad():
        assert torch.equal(sparse(x), dense(x))
        assert sparse(x).grad_fn is None
    assert type(sparse(x).grad_fn).__name__ == "_GatheringBackward"
    on_meta = SparseConv2d(4, 3, 3).to("meta")(torch.empty(1, 4, 15, 17, device="meta"))
    assert type(on_meta.grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 4, 6), (3, 4, 1, 1)])
def test_a_small_maps_conv_with_strides(stride: int, shape: tuple[int, int, int, int]) -> None:
    dense = nn.Conv2d(4, 70 * FEW, 3, stride=stride, padding=1).double()
    ours = nn.Sequential(copy.deepcopy(dense))
    gather_on_small_maps(ours)
    assert isinstance(ours[0], SmallMapConv2d)
    x = torch.randn(shape).double()
    assert type(ours(x.requires_grad_()).grad_fn).__name__ == "_GatheringBackward"
    gradient = torch.randn_like(dense(x))
    expected = torch.autograd.grad(dense(x), [x, dense.weight, dense.bias], gradient)
    found = torch.autograd.grad(ours(x), [x, ours[0].weight, ours[0].bias], gradient)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_large_maps_go_the_plain_way() -> None:
    conv = SmallMapConv2d(4, 8, 3, stride=2)
    y = conv(torch.randn(1, 4, 16, 16))
    assert y.shape == (1, 8, 8, 8)
    assert type(y.grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_large_maps_without_avx512(monkeypatch: pytest.MonkeyPatch, stride: int, bias: bool, capability: str) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("detlab.tensors.convs.MANY", 5 * 6 * 2000)
    given: list[list[bool]] = []
    plain = torch.ops.aten.convolution_backward

    def seen(*args: Any) -> Any:
        given.append([part.is_contiguous() for part in args[:3]])
        return plain(*args)

    monkeypatch.setattr("torch.ops.aten.convolution_backward", seen)
    dense = nn.Conv2d(5, 6, 3, stride=stride, padding=1, bias=bias).to(memory_format=torch.channels_last)
    ours = SmallMapConv2d.over_weights_of(dense)
    x = torch.randn(2, 5, 50, 52).to(memory_format=torch.channels_last)
    gradient = torch.randn(dense(x).shape).to(memory_format=torch.channels_last)
    theirs = _gradients(dense, x, gradient)
    dense.zero_grad()
    found = _gradients(ours, x, gradient)
    large = capability == "AVX2" and stride == 1  # 2,600 locations, or 650
    assert given == ([[True] * 3] if large else [])
    assert found.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
    assert found["weight"].is_contiguous(memory_format=torch.channels_last)
    (by_x,) = torch.autograd.grad(ours(x.requires_grad_()), x, gradient)  # not yet in the layout of x
    assert by_x.is_contiguous(memory_format=torch.channels_last)


def test_which_convs_are_replaced() -> None:
    others = [
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, (3, 1), padding=(1, 0)),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        SparseConv2d(4, 8, 3),
    ]
    layers = nn.Sequential(*others, nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False)))
    names, kinds = list(layers.state_dict()), [type(conv) for conv in others]
    gather_on_small_maps(layers)
    assert [type(conv) for conv in layers[:-1]] == kinds
    assert isinstance(layers[-1][0], SmallMapConv2d)
    assert list(layers.state_dict()) == names


def test_replacing_keeps_the_very_weights_and_draws_nothing() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, padding=1)
    layers = nn.ModuleDict({"one": nn.Sequential(conv), "two": nn.Sequential(conv)}).eval()
    state = torch.get_rng_state()
    gather_on_small_maps(layers)
    one, two = layers["one"][0], layers["two"][0]
    assert one is two
    assert type(one) is SmallMapConv2d
    assert one.weight is conv.weight
    assert one.bias is conv.bias
    assert not one.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_conv_with_hooks_stays() -> None:
    layers = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    layers[0].register_forward_hook(lambda module, given, made: made + 1)
    gather_on_small_maps(layers)
    assert [type(conv) for conv in layers] == [nn.Conv2d, SmallMapConv2d]


def test_double_stays_double_under_autocast() -> None:
    sparse, dense = _pair(4, 3, 3)
    x = torch.randn(1, 4, 15, 17).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sparse(x), dense(x))


@pytest.mark.parametrize(
    ("channels", "stride", "kernel", "refused"), [(7, 2, 1, True), (8, 2, 1, False), (7, 1, 1, False), (7, 2, 3, False)]
)
def test_convs_with_wrong_gradients_are_refused(channels: int, stride: int, kernel: int, refused: bool) -> None:
    network = nn.Sequential(nn.Conv2d(channels, 16, kernel, stride=stride))
    with pytest.raises(ValueError, match="0 is a 1x1 conv with stride 2 over 7") if refused else nullcontext():
        refuse_narrow_strides(network)
