"""Box geometry against arithmetic done by hand."""

import pytest
import torch

from detlab.tensors.boxes import area, clip, ordered, pairwise_overlap, sides


@pytest.mark.parametrize(
    ("box", "iou"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 15, 10), 1 / 3),
        ((5, 5, 15, 15), 25 / 175),
        ((2, 2, 6, 6), 0.16),  # contained: 16 / 100
        ((10, 0, 20, 10), 0.0),  # touching
        ((20, 0, 30, 10), 0.0),
        ((5, 0, 5, 10), 0.0),  # no width
        ((20, 20, 20, 20), 0.0),  # a point
    ],
)
def test_iou_with_a_square_of_ten(box: tuple[float, ...], iou: float) -> None:
    square = torch.tensor([[[0.0, 0, 10, 10]]])
    found = pairwise_overlap(square, torch.tensor([[box]], dtype=torch.float32))
    assert found.item() == pytest.approx(iou, abs=1e-6)


def test_two_equal_points_have_no_overlap_instead_of_nan() -> None:
    point = torch.tensor([[[5.0, 5, 5, 5]]])
    assert pairwise_overlap(point, point).item() == 0


def test_overlap_is_batched_and_broadcasts_anchors() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 20, 20]], [[5, 5, 15, 15], [0, 0, 0, 0]]])
    anchors = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 15, 15], [50, 50, 60, 60]]])
    found = pairwise_overlap(boxes, anchors)
    assert found.shape == (2, 2, 3)
    expected = torch.tensor([[[1, 1 / 7, 0], [0.25, 0.25, 0]], [[1 / 7, 1, 0], [0, 0, 0]]])
    torch.testing.assert_close(found, expected)


def test_a_crowd_is_measured_by_the_anchors_own_area() -> None:
    crowd = torch.tensor([[[0.0, 0, 100, 100]]])
    anchor = torch.tensor([[[90.0, 0, 110, 10]]])  # half of it inside
    assert pairwise_overlap(crowd, anchor, torch.tensor([[True]])).item() == pytest.approx(0.5)


def test_area_order_sides() -> None:
    boxes = torch.tensor([[2.0, 3, 6, 10], [6, 10, 2, 3]])
    assert area(boxes).tolist() == [28, 0]
    assert ordered(boxes).tolist() == [[2, 3, 6, 10]] * 2
    assert [t.tolist() for t in sides(boxes)] == [[4, -4], [7, -7]]


def test_clip_uses_each_images_own_size() -> None:
    boxes = torch.tensor([[[-5.0, -5, 200, 200]], [[10, 10, 200, 200]]])
    sizes = torch.tensor([[50, 100], [80, 60]])  # (height, width)
    assert clip(boxes, sizes).tolist() == [[[0, 0, 100, 50]], [[10, 10, 60, 80]]]
    per_class = boxes[:, :, None].expand(-1, -1, 3, -1)
    assert clip(per_class, sizes)[1, 0, 2].tolist() == [10, 10, 60, 80]
