"""Default boxes against the published counts and corners of SSD and RefineDet."""

import math

import pytest
import torch

from detlab.model.anchors import Anchors, DefaultBoxes
from detlab.tensors.structures import Level

CPU = torch.device("cpu")
SSD300 = [Level("C3", 1, 8), Level("fc7", 1, 16), Level("extra1", 1, 32), Level("extra2", 1, 64)]
SSD300 += [Level("extra3", 1, 64, 2), Level("extra4", 1, 64, 4)]
SSD512 = [Level(f"L{s}", 1, s) for s in (8, 16, 32, 64, 128, 256)] + [Level("L512", 1, 256, 1)]
VOC300 = {
    "scales": [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
    "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
}
VOC512 = {
    "scales": [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05],
    "ratios": [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
}


def of(levels: list[Level], side: int, **options: object) -> torch.Tensor:
    return DefaultBoxes(**options)(levels, (side, side), CPU)[0]


def test_maps_of_both_canvases() -> None:
    assert [level.size((300, 300))[0] for level in SSD300] == [38, 19, 10, 5, 3, 1]
    assert [level.size((512, 512))[0] for level in SSD512] == [64, 32, 16, 8, 4, 2, 1]


def test_counts_of_ssd300() -> None:
    per_level = DefaultBoxes(**VOC300).per_level(SSD300, (300, 300))
    assert [len(boxes) for boxes in per_level] == [5776, 2166, 600, 150, 36, 4]
    assert sum(len(boxes) for boxes in per_level) == 8732


def test_counts_of_ssd512() -> None:
    per_level = DefaultBoxes(**VOC512).per_level(SSD512, (512, 512))
    assert [len(boxes) for boxes in per_level] == [16384, 6144, 1536, 384, 96, 16, 4]
    assert sum(len(boxes) for boxes in per_level) == 24564


def test_the_formula_gives_the_papers_scales_and_six_boxes_a_cell() -> None:
    boxes = DefaultBoxes(s_min=0.2, s_max=0.9, ratios=[2, 3])
    assert boxes.level_scales(6)[:6] == pytest.approx([0.2, 0.34, 0.48, 0.62, 0.76, 0.9])
    assert boxes.num_anchors(SSD300) == [6] * 6
    assert boxes(SSD300, (300, 300), CPU).shape == (1, 11_640, 4)


@pytest.mark.parametrize(
    ("row", "corners"),
    [
        (0, (-11, -11, 19, 19)),
        (1, (-17.2132, -17.2132, 25.2132, 25.2132)),
        (2, (-17.2132, -6.6066, 25.2132, 14.6066)),
        (3, (-6.6066, -17.2132, 14.6066, 25.2132)),
        (4, (-3, -11, 27, 19)),
        (5776, (-22, -22, 38, 38)),
        (5781, (-9.3205, -43.9615, 25.3205, 59.9615)),
        (8728, (18, 18, 282, 282)),
        (8729, (5.8126, 5.8126, 294.1874, 294.1874)),
        (8731, (56.6619, -36.6762, 243.3381, 336.6762)),
    ],
)
def test_corners_of_ssd300(row: int, corners: tuple[float, ...]) -> None:
    assert of(SSD300, 300, **VOC300)[row].tolist() == pytest.approx(corners, abs=1e-4)


def test_boxes_inside_ssd300s_canvas() -> None:
    boxes = of(SSD300, 300, **VOC300)
    assert ((boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= 300).all(1)).sum() == 5863


def test_steps_are_caffes() -> None:
    """8, 16, 32, 64, 100, 300: strides, and the canvas over the map behind unpadded convs."""
    for level, boxes, step in zip(
        SSD300, DefaultBoxes(**VOC300).per_level(SSD300, (300, 300)), (8, 16, 32, 64, 100, 300), strict=True
    ):
        assert ((boxes[0, 0] + boxes[0, 2]) / 2).item() == pytest.approx(step / 2, abs=1e-4), level.name


def test_boxes_follow_the_canvas() -> None:
    large, small = (of(SSD300[:1], side, **VOC300)[0] for side in (600, 150))
    assert (large[2] - large[0]).item() == pytest.approx(60)
    assert (small[2] - small[0]).item() == pytest.approx(15)
    wide = DefaultBoxes(**VOC300)(SSD300, (300, 600), CPU)[0]
    assert (wide[0, 2] - wide[0, 0]).item() == pytest.approx(30)  # a share of the shorter side
    assert wide[-4].tolist() == pytest.approx([418, 18, 682, 282])  # the last of 1 x 6 cells, 100 px apart


def test_fewer_levels_leave_the_last_scales_unused() -> None:
    few = DefaultBoxes(**VOC300).per_level(SSD300[:4], (300, 300))
    whole = DefaultBoxes(**VOC300).per_level(SSD300, (300, 300))
    assert all(torch.equal(a, b) for a, b in zip(few, whole, strict=False))


def test_switches() -> None:
    assert DefaultBoxes(**VOC300 | {"extra_square": False}).num_anchors(SSD300) == [3, 5, 5, 5, 3, 3]
    assert DefaultBoxes(**VOC300 | {"ratios": [2]}).num_anchors(SSD300) == [4] * 6
    assert DefaultBoxes(**VOC300 | {"ratios": []}).num_anchors(SSD300) == [2] * 6
    cut = of(SSD300, 300, **VOC300, clip="corners")
    assert cut.min() >= 0
    assert cut.max() <= 300
    sides = of(SSD300, 300, **VOC300, clip="sides")[8730]
    assert (sides[2] - sides[0]).item() == 300  # 264 * sqrt(2) is 373
    assert (sides[3] - sides[1]).item() == pytest.approx(264 / math.sqrt(2))


def test_refinedets_anchors() -> None:
    levels = [Level(f"P{s}", 256, s) for s in (8, 16, 32, 64)]
    anchors = Anchors(sizes=[32, 64, 128, 256], ratios=[1.0, 0.5, 2.0])
    assert anchors(levels, (320, 320), CPU).shape[1] == 6375
    assert anchors(levels, (512, 512), CPU).shape[1] == 16_320
    first = torch.tensor(
        [[-12, -12, 20, 20], [-18.6274, -7.3137, 26.6274, 15.3137], [-7.3137, -18.6274, 15.3137, 26.6274]]
    )
    for i, boxes in enumerate(anchors.per_level(levels, (320, 320))):
        torch.testing.assert_close(boxes[:3], first * 2**i, atol=1e-3, rtol=0)


def test_absolute_anchors_lie_in_the_middle_behind_unpadded_convs() -> None:
    """The one cell of SSD300's last map has seen all of the 5x5 map of stride 64."""
    (boxes,) = Anchors(sizes=[64], ratios=[1.0]).per_level(SSD300[-1:], (300, 300))
    assert boxes.tolist() == [[128, 128, 192, 192]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": [0.1]}, "needs positive scales"),
        ({"s_min": 0.9, "s_max": 0.2}, "s_min <= s_max"),
        ({"ratios": [0.5]}, "numbers above 1"),
        ({"clip": "all"}, "model.anchors.clip=all is not known; use one of none"),
    ],
)
def test_nonsense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DefaultBoxes(**options)


def test_more_levels_than_scales_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scales for 6 levels, but model.neck gives 7; use model/anchors=ssd512"):
        DefaultBoxes(scales=VOC300["scales"]).per_level(SSD512, (512, 512))
    with pytest.raises(ValueError, match=r"ratios has 6 lists, but model.neck gives 7 levels"):
        DefaultBoxes(ratios=VOC300["ratios"]).num_anchors(SSD512)


def test_a_level_keeps_its_boxes_where_another_is_left_out() -> None:
    names = [level.name for level in SSD300]
    whole = DefaultBoxes(**VOC300).per_level(SSD300, (300, 300))
    kept = [level for level in SSD300 if level.name not in ("C3", "extra2")]
    keyed = DefaultBoxes(levels=names, **VOC300)
    found = keyed.per_level(kept, (300, 300))
    for level, boxes in zip(kept, found, strict=True):
        assert torch.equal(boxes, whole[names.index(level.name)]), level.name
    assert keyed.num_anchors(kept) == [6, 6, 4, 4]
    dealt = DefaultBoxes(**VOC300).per_level(kept, (300, 300))
    assert not torch.equal(dealt[0], found[0])  # without names, the scales move up
    with pytest.raises(ValueError, match=r"model.anchors.levels=\['fc7'\] lacks C3"):
        DefaultBoxes(levels=["fc7"], **VOC300).per_level(SSD300[:2], (300, 300))
