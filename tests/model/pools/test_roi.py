"""RoI pools against worked values and torchvision's operators, values and gradients."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from detlab.model.pools import RoIAlign, RoIPool, SpatialPyramidPool, embedding, fpn_level
from detlab.model.pools.roi import NOWHERE
from detlab.tensors.structures import Level

M1 = torch.arange(36.0).view(1, 1, 6, 6)
M2 = torch.tensor(
    [
        [0, 9, 2, 1, 4, 3],
        [5, 1, 7, 2, 0, 6],
        [3, 8, 0, 5, 9, 1],
        [2, 4, 6, 1, 3, 7],
        [9, 0, 1, 8, 2, 5],
        [1, 6, 3, 4, 7, 0],
    ]
).float()[None, None]


def rois(*boxes: tuple[float, ...], image: int = 0) -> Tensor:
    return torch.tensor([[image, *b] for b in boxes], dtype=torch.float32)


def one(stride: int = 1) -> list[Level]:
    return [Level("C4", 1, stride)]


ALIGN_CASES = [
    (M1, (0, 0, 5, 5), 1, (14, 17, 32, 35), (8.75, 11.25, 23.75, 26.25), (5.25, 7.75, 20.25, 22.75)),
    (M1, (0, 0, 6, 6), 1, (21, 23, 33, 35), (10.5, 13.375, 27.75, 30.625), (7, 10, 25, 28)),
    (M1, (1, 1, 4, 4), 1, (14, 16, 26, 28), (12.25, 13.75, 21.25, 22.75), (8.75, 10.25, 17.75, 19.25)),
    (M1, (0.6, 0.6, 3.4, 3.4), 1, (14, 15, 20, 21), (9.1, 10.5, 17.5, 18.9), (5.6, 7, 14, 15.4)),
    (
        M1,
        (16, 16, 79, 79),
        16,
        (21, 23, 33, 35),
        (13.8906, 15.8594, 25.7031, 27.6719),
        (10.3906, 12.3594, 22.2031, 24.1719),
    ),
    (M1, (2, 1, 2, 1), 1, (8, 8, 8, 8), (9.75, 10.25, 12.75, 13.25), (4.5, 4.5, 4.5, 4.5)),
    (M2, (0, 0, 5, 5), 1, (9, 9, 9, 8), (3.9961, 3.7344, 3.4688, 4.0234), (3.9023, 2.9570, 3.9258, 3.9219)),
    (M2, (1, 0, 3, 4), 1, (9, 7, 8, 8), (4.3750, 3.2500, 3.6250, 3.5000), (4.6250, 4.1875, 5.1875, 3.3750)),
    (M2, (0.6, 1.4, 4.4, 3.6), 1, (8, 9, 6, 8), (3.9681, 5.3294, 4.1589, 3.0394), (4.0606, 3.63, 4.4319, 3.5475)),
]


@pytest.mark.parametrize(("x", "box", "stride", "pooled", "unaligned", "aligned"), ALIGN_CASES)
def test_tables(x: Tensor, box: tuple, stride: int, pooled: tuple, unaligned: tuple, aligned: tuple) -> None:
    features = {"C4": x}
    found = RoIPool(levels=one(stride), size=2)(features, rois(box))
    assert found.flatten().tolist() == list(pooled)
    for expected, flag in ((unaligned, False), (aligned, True)):
        found = RoIAlign(levels=one(stride), size=2, aligned=flag)(features, rois(box)).flatten()
        torch.testing.assert_close(found, torch.tensor(expected).float(), atol=1e-4, rtol=0)


def test_adaptive_sampling() -> None:
    pool = RoIAlign(levels=one(), size=2, sampling_ratio=0, aligned=True)
    found = pool({"C4": M1}, rois((0, 0, 5, 5))).flatten()
    torch.testing.assert_close(found, torch.tensor([5.4444, 7.9167, 20.2778, 22.75]), atol=1e-4, rtol=0)


def test_roi_pool_of_three_bins() -> None:
    assert RoIPool(levels=one(), size=3)({"C4": M1}, rois((0, 0, 5, 5))).flatten().tolist() == [
        7, 9, 11, 19, 21, 23, 31, 33, 35,
    ]  # fmt: skip


def test_spatial_pyramid_of_21_bins_and_50() -> None:
    pool = SpatialPyramidPool(levels=one(), size=7)
    assert pool.bins == 21
    found = pool({"C4": M1}, rois((0, 0, 5, 5))).flatten().tolist()
    assert found == [7, 8, 10, 11, 13, 14, 16, 17, 25, 26, 28, 29, 31, 32, 34, 35, 14, 17, 32, 35, 35]
    m2 = pool({"C4": M2}, rois((0, 0, 5, 5))).flatten().tolist()
    assert m2 == [9, 9, 4, 6, 8, 8, 9, 9, 9, 6, 8, 7, 9, 6, 8, 7, 9, 9, 9, 8, 9]
    assert SpatialPyramidPool(levels=one(), size=7, grids=(6, 3, 2, 1)).bins == 50


@pytest.mark.parametrize(
    ("side", "level"), [(32, 2), (111, 2), (112, 3), (223, 3), (224, 4), (447, 4), (448, 5), (800, 5)]
)
def test_level_of_a_roi(side: float, level: int) -> None:
    index = fpn_level(torch.tensor([[0.0, 0, side, side]]), [4, 8, 16, 32])
    assert 2 + index.item() == level


def random_rois(count: int, images: int, side: float) -> Tensor:
    low = torch.rand(count, 2) * side - 10
    size = torch.rand(count, 2) ** 2 * side
    return torch.cat([torch.randint(0, images, (count, 1)).float(), low, low + size], dim=1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_embedding_bag_equals_torchvisions_operator(aligned: bool, samples: int) -> None:
    x = torch.randn(2, 5, 12, 17, dtype=torch.float32, requires_grad=True)
    boxes = random_rois(60, 2, 120)
    weights = torch.randn(60, 5, 7, 7)
    found = RoIAlign(levels=[Level("C3", 5, 8)], size=7, sampling_ratio=samples, aligned=aligned)({"C3": x}, boxes)
    (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    expected = roi_align(x, boxes, 7, 1 / 8, samples, aligned)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool, SpatialPyramidPool])
def test_a_pyramid_is_read_as_level_by_level(kind: type) -> None:
    levels = [Level(f"P{i}", 3, 2**i) for i in (2, 3, 4)]
    features = {v.name: torch.randn(2, 3, *v.size((256, 256)), requires_grad=True) for v in levels}
    boxes = random_rois(40, 2, 220)
    boxes[:3, 1:] = torch.tensor([[2.0, 3, 250, 251], [0, 0, 300, 240], [5, 5, 235, 256]])  # at least 224 px
    found = kind(levels=levels, size=4)(features, boxes)
    level = fpn_level(boxes[:, 1:], [4, 8, 16])
    assert set(level.tolist()) == {0, 1, 2}
    for row in range(40):
        own = levels[level[row]]
        alone = kind(levels=[own], size=4)(features, boxes[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    found.sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in features.values())


def test_multi_scale_roi_align_of_torchvision() -> None:
    levels = [Level(str(i), 3, 2 ** (i + 2)) for i in range(4)]
    features = {v.name: torch.randn(1, 3, *v.size((512, 512))) for v in levels}
    boxes = random_rois(80, 1, 500)
    boxes[:, 1:] = boxes[:, 1:].clamp(0, 512)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)(features, [boxes[:, 1:]], [(512, 512)])
    torch.testing.assert_close(RoIAlign(levels=levels, size=7)(features, boxes), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool, SpatialPyramidPool])
def test_no_rois_give_no_rows(kind: type) -> None:
    pool = kind(levels=one(16), size=7)
    assert len(pool({"C4": torch.randn(1, 1, 4, 4)}, torch.zeros(0, 5))) == 0


@pytest.mark.parametrize("pool", [RoIAlign, RoIPool, SpatialPyramidPool])
def test_half_precision_maps_keep_the_rois_exact(pool: type) -> None:
    """317.3 px has no neighbour closer than 316 or 318 in bfloat16."""
    level = Level("C4", 3, 16)
    x = torch.randn(1, 3, 24, 24)
    rois = torch.tensor([[0, 301.3, 200.7, 317.3, 370.1], [0, 10.0, 10.0, 100.0, 50.0]])
    made = pool(levels=[level], size=3)
    exact = made({"C4": x.bfloat16().float()}, rois)
    for read in (made({"C4": x.bfloat16()}, rois), made.read(x.bfloat16(), rois, 16)):
        assert read.dtype == torch.bfloat16
        torch.testing.assert_close(read.float(), exact, atol=2e-2, rtol=2e-2)


def pyramid(sides: tuple[int, ...], channels: int = 3) -> tuple[list[Level], dict[str, Tensor]]:
    """Levels P2, P3, ... of a canvas, and random maps of two images that want a gradient."""
    levels = [Level(f"P{i}", channels, 2**i) for i in range(2, 5)]
    return levels, {v.name: torch.randn(2, channels, *v.size(sides), requires_grad=True) for v in levels}


AWKWARD = [
    [0, 0, 0, 0, 0],  # a point in the corner
    [1, 50, 60, 50, 200],  # no width
    [0, -80, -90, -20, -10],  # outside, above and left
    [1, 250, 250, 400, 380],  # across the far corner
    [0, 300, 300, 500, 500],  # outside, below and right
    [1, 200, 180, 60, 40],  # corners swapped
    [0, -1000, -1000, 2000, 2000],  # far larger than the map
    [1, 31.999, 63.999, 32.001, 64.001],  # smaller than a sample's cell
    [0, 0, 0, 255.5, 191.5],  # the whole canvas
]


@pytest.mark.parametrize("aligned", [False, True])
def test_gradients_of_a_pyramid_and_awkward_rois_equal_torchvisions(aligned: bool) -> None:
    levels, features = pyramid((192, 256))
    boxes = torch.cat([torch.tensor(AWKWARD, dtype=torch.float32), random_rois(60, 2, 250)])
    found = RoIAlign(levels=levels, size=5, aligned=aligned)(features, boxes)
    level = fpn_level(boxes[:, 1:], [4, 8, 16])
    expected = torch.zeros_like(found)
    for i, one_level in enumerate(levels):
        rows = level == i
        expected[rows] = roi_align(features[one_level.name], boxes[rows], 5, 1 / one_level.stride, 2, aligned)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(found)
    mine = torch.autograd.grad((found * weights).sum(), list(features.values()))
    theirs = torch.autograd.grad((expected * weights).sum(), list(features.values()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_bfloat16_maps_sum_their_gradients_in_float32() -> None:
    """300 RoIs on one spot: sums of bfloat16 numbers would stop growing at 256."""
    levels = [Level("P2", 1, 4)]
    x = torch.ones(1, 1, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    boxes = rois((8, 8, 16, 16)).repeat(300, 1)
    RoIAlign(levels=levels, size=1)({"P2": x}, boxes).sum().backward()
    assert x.grad.float().sum().item() == pytest.approx(300, rel=0.01)


@pytest.mark.parametrize("pool", [RoIAlign, RoIPool])
def test_rois_are_rows_of_index_and_input_pixels(pool: type) -> None:
    """[N, 5], the image's index first, corners in px of the input image: N maps [C, h, w] at one sixteenth."""
    x = torch.zeros(2, 3, 8, 8)
    x[1] = 1.0
    x[1, :, 4:] = 2.0  # the lower half of the second image, from 64 px on
    rois = torch.tensor([[0.0, 0, 0, 127, 127], [1, 0, 0, 127, 40], [1, 16, 80, 100, 111]])
    found = pool(levels=[Level("C4", 3, 16)], size=7)({"C4": x}, rois)
    assert found.shape == (3, 3, 7, 7)
    torch.testing.assert_close(found, torch.tensor([0.0, 1, 2]).view(3, 1, 1, 1).expand_as(found))


def test_a_gpu_adds_gradients_column_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, features = pyramid((96, 128))
    boxes = torch.cat([torch.tensor(AWKWARD, dtype=torch.float32), random_rois(30, 2, 120)])
    found = RoIAlign(levels=levels, size=5)(features, boxes)
    weights = torch.randn_like(found)
    on_cpu = torch.autograd.grad((found * weights).sum(), list(features.values()))
    monkeypatch.setattr(embedding, "fixed_shapes", lambda x: True)
    again = RoIAlign(levels=levels, size=5)(features, boxes)
    assert torch.equal(again, found)
    for a, b in zip(on_cpu, torch.autograd.grad((again * weights).sum(), list(features.values())), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pool", [RoIAlign, RoIPool, SpatialPyramidPool])
def test_outside_every_map_lie_zeros(pool: type) -> None:
    """A GPU reads the RoIs of other levels there and adds the levels up."""
    made = pool(levels=[Level("C4", 3, 16)], size=3)
    x = torch.rand(1, 3, 8, 8) + 1
    nowhere = torch.tensor([[0.0, NOWHERE, NOWHERE, NOWHERE, NOWHERE]])
    assert not made.read(x, nowhere, 16).any()
