"""Anchors against published counts and corners, and against torchvision where it is right."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detlab.model.anchors import Anchors, CaffeAnchors, deal
from detlab.tensors.structures import Level

CPU = torch.device("cpu")


def pyramid(first: int, last: int) -> list[Level]:
    return [Level(f"P{i}", 256, 2**i) for i in range(first, last + 1)]


RETINANET = {"sizes": [32, 64, 128, 256, 512], "octaves": [1, 2 ** (1 / 3), 2 ** (2 / 3)], "ratios": [0.5, 1, 2]}


@pytest.mark.parametrize(
    ("canvas", "count"), [((800, 800), 120_087), ((512, 512), 49_104), ((600, 600), 67_995), ((800, 1333), 200_700)]
)
def test_retinanet_counts(canvas: tuple[int, int], count: int) -> None:
    assert Anchors(**RETINANET)(pyramid(3, 7), canvas, CPU).shape == (1, count, 4)


@pytest.mark.parametrize(("canvas", "count"), [((800, 800), 159_882), ((800, 1333), 267_069), ((800, 1344), 268_569)])
def test_fpn_counts(canvas: tuple[int, int], count: int) -> None:
    assert Anchors(sizes=[32, 64, 128, 256, 512])(pyramid(2, 6), canvas, CPU).shape[1] == count


def test_levels_of_fpn_on_800() -> None:
    per_level = Anchors(sizes=[32, 64, 128, 256, 512]).per_level(pyramid(2, 6), (800, 800))
    assert [len(x) for x in per_level] == [120_000, 30_000, 7_500, 1_875, 507]


def test_corners_on_a_two_by_two_map_equal_torchvisions() -> None:
    anchors = Anchors(sizes=[32], offset=0.0, round_corners=True)([Level("C4", 1, 16)], (32, 32), CPU)[0]
    assert len(anchors) == 12
    assert anchors[3].tolist() == [-7, -11, 39, 11]
    assert anchors[-1].tolist() == [5, -7, 27, 39]


def test_py_faster_rcnn_on_600_by_1000() -> None:
    anchors = CaffeAnchors(sizes=[128, 256, 512])([Level("C4", 1, 16)], (600, 1000), CPU)[0]
    assert len(anchors) == 21_546
    # As published, (-84, -40, 99, 55) inclusive, around 7.5; the far corner is one larger in continuous pixels.
    assert anchors[0].tolist() == [-84, -40, 100, 56]
    low, high = anchors[:, :2], anchors[:, 2:] - 1  # inclusive again
    inside = (low >= 0).all(1) & (high[:, 0] < 1000) & (high[:, 1] < 600)
    assert inside.sum() == 8_151


@pytest.mark.parametrize("canvas", [(128, 256), (160, 224), (256, 352), (800, 1088), (800, 1216), (33, 65)])
def test_divided_steps_are_torchvisions(canvas: tuple[int, int]) -> None:
    """On P3-P7; the true strides of 64 and 128 are theirs only where they divide the canvas."""
    levels, sizes = pyramid(3, 7), (32, 64, 128, 256, 512)
    theirs = AnchorGenerator(tuple((s,) for s in sizes), ((0.5, 1.0, 2.0),) * 5)
    maps = [torch.zeros(1, 1, *level.size(canvas)) for level in levels]
    expected = theirs(ImageList(torch.zeros(1, 3, *canvas), [canvas]), maps)[0]
    ours = Anchors(sizes=sizes, offset=0.0, round_corners=True, steps="divided")(levels, canvas, CPU)[0]
    assert torch.equal(ours, expected)
    true = Anchors(sizes=sizes, offset=0.0, round_corners=True)(levels, canvas, CPU)[0]
    assert torch.equal(true, expected) == (canvas == (128, 256))


def test_divided_steps_lie_elsewhere_by_the_rounding_of_the_map() -> None:
    """On 800 x 1088 P7 has 7 x 9 cells: steps of 114 x 120 px, so the last anchors lie 84 and 64 px off."""
    own, other = (
        Anchors(sizes=[512], ratios=[1.0], offset=0.0, steps=steps)([Level("P7", 1, 128)], (800, 1088), CPU)[0]
        for steps in ("stride", "divided")
    )
    assert (own - other)[-1].tolist() == [64, 84, 64, 84]
    centred = Anchors(sizes=[512], ratios=[1.0], steps="divided")([Level("P7", 1, 128)], (800, 1088), CPU)[0]
    assert (centred - other)[0].tolist() == [60, 57, 60, 57]


def test_unknown_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model.anchors.steps=true is not known; use one of stride, divided"):
        Anchors(sizes=[32], steps="true")


def test_equal_to_torchvision_where_strides_divide() -> None:
    levels, canvas = pyramid(2, 5), (128, 192)
    theirs = AnchorGenerator(((32,), (64,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 4)
    maps = [torch.zeros(1, 1, *level.size(canvas)) for level in levels]
    expected = theirs(ImageList(torch.zeros(1, 3, *canvas), [canvas]), maps)[0]
    ours = Anchors(sizes=[32, 64, 128, 256], offset=0.0, round_corners=True)(levels, canvas, CPU)[0]
    torch.testing.assert_close(ours, expected)


def test_strides_stay_exact_where_torchvision_divides_integers() -> None:
    (last,) = Anchors(sizes=[512], ratios=[1.0]).per_level([Level("P6", 1, 64)], (800, 800))
    assert last[1].tolist() == [64 + 32 - 256, 32 - 256, 64 + 32 + 256, 32 + 256]  # torchvision: stride 61


def test_a_square_keeps_its_area_at_every_ratio() -> None:
    base = Anchors(sizes=[64], ratios=[0.5, 1.0, 2.0]).base([64], 16)
    w, h = base[:, 2] - base[:, 0], base[:, 3] - base[:, 1]
    torch.testing.assert_close(w * h, torch.full((3,), 64.0**2, dtype=torch.float64))
    torch.testing.assert_close(h / w, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("sizes", "levels", "dealt"),
    [
        ([32, 64, 128, 256, 512], 5, [[32], [64], [128], [256], [512]]),
        ([32, 64, 128, 256, 512], 1, [[32, 64, 128, 256, 512]]),
        ([64, 32], 2, [[32], [64]]),
        ([32, 64, 128, 256, 512], 3, [[32, 64], [128, 256], [512, 1024]]),
        ([16], 2, [[16], [32]]),
    ],
)
def test_sizes_are_dealt_in_order_and_doubled_on(sizes: list, levels: int, dealt: list) -> None:
    assert deal(sizes, levels) == dealt


def test_anchors_of_a_canvas_are_made_once() -> None:
    anchors = Anchors(sizes=[32])
    levels = [Level("C4", 1, 16)]
    assert anchors(levels, (64, 64), CPU) is anchors(levels, (64, 64), CPU)
    assert anchors(levels, (64, 96), CPU).shape[1] == 4 * 6 * 3


@pytest.mark.parametrize("wrong", [{"sizes": []}, {"sizes": [-1]}, {"sizes": [32], "ratios": [0]}])
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="model.anchors needs positive"):
        Anchors(**wrong)
