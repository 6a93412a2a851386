"""Box losses against worked values."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from detlab.model.coders import BoxCoder
from detlab.model.losses import BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss

SQUARE = (0.0, 0.0, 10.0, 10.0)
CODER = BoxCoder()


def of_boxes(loss: IoULoss, box: tuple[float, ...], truth: tuple[float, ...] = SQUARE) -> float:
    return loss.of_boxes(torch.tensor([box]).float(), torch.tensor([truth]).float()).item()


@pytest.mark.parametrize(
    ("box", "iou", "giou_loss"),
    [
        (SQUARE, 1, 0),
        ((5, 0, 15, 10), 1 / 3, 2 / 3),
        ((5, 5, 15, 15), 0.142857, 1.079365),
        ((2, 2, 6, 6), 0.16, 0.84),
        ((10, 0, 20, 10), 0, 1),
        ((10, 10, 20, 20), 0, 1.5),
        ((20, 0, 30, 10), 0, 4 / 3),
        ((90, 90, 100, 100), 0, 1.98),
        ((5, 0, 5, 10), 0, 1),
        ((20, 20, 20, 20), 0, 1.75),
    ],
)
def test_iou_and_giou_table(box: tuple, iou: float, giou_loss: float) -> None:
    assert of_boxes(IoULoss(), box) == pytest.approx(1 - iou, abs=1e-5)
    assert of_boxes(GIoULoss(), box) == pytest.approx(giou_loss, abs=1e-5)


def test_swapped_corners_are_the_same_box() -> None:
    """Step 1 of algorithm 2: (10, 10, 0, 0) is (0, 0, 10, 10)."""
    for loss in (IoULoss(), GIoULoss(), DIoULoss(), CIoULoss()):
        assert of_boxes(loss, (10, 10, 0, 0)) == pytest.approx(0, abs=1e-6)
    assert of_boxes(GIoULoss(), (15, 10, 5, 0)) == pytest.approx(2 / 3, abs=1e-5)


def test_two_equal_points_are_finite() -> None:
    point = (5.0, 5.0, 5.0, 5.0)
    for loss in (IoULoss(), GIoULoss(), DIoULoss(), CIoULoss()):
        assert of_boxes(loss, point, point) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("truth", "expected", "iou_gradient"),
    [
        ((20, 0, 30, 10), (0.011111, 0, -0.033333, 0), (0, 0, 0, 0)),
        ((5, 0, 15, 10), (-0.022222, 0, -0.066667, 0), None),
    ],
)
def test_giou_gradient(truth: tuple, expected: tuple, iou_gradient: tuple | None) -> None:
    box = torch.tensor([SQUARE], requires_grad=True)
    GIoULoss().of_boxes(box, torch.tensor([truth]).float()).sum().backward()
    torch.testing.assert_close(box.grad[0], torch.tensor(expected), atol=1e-5, rtol=0)
    if iou_gradient is not None:
        box.grad = None
        IoULoss().of_boxes(box, torch.tensor([truth]).float()).sum().backward()
        assert box.grad[0].tolist() == list(iou_gradient)


def test_diou_and_ciou_by_hand() -> None:
    # Shifted by 5: IoU 1/3; centres 5 apart, enclosing box 15 x 10: 25 / 325. Same shape, so CIoU adds nothing.
    assert of_boxes(DIoULoss(), (5, 0, 15, 10)) == pytest.approx(2 / 3 + 25 / 325, abs=1e-5)
    assert of_boxes(CIoULoss(), (5, 0, 15, 10)) == pytest.approx(2 / 3 + 25 / 325, abs=1e-5)
    # 20 x 5 on the square's centre: IoU 50 / 150; v = 4 / pi^2 (atan 4 - atan 1)^2, alpha = v / (1 - IoU + v)
    v = 4 / torch.pi**2 * (torch.atan(torch.tensor(4.0)) - torch.pi / 4).item() ** 2
    expected = 2 / 3 + v * v / (2 / 3 + v)
    assert of_boxes(CIoULoss(), (-5, 2.5, 15, 7.5)) == pytest.approx(expected, abs=1e-5)


def test_ciou_and_its_gradient_equal_torchvisions() -> None:
    low = torch.rand(100, 2) * 50
    boxes = torch.cat([low, low + 1 + torch.rand(100, 2) * 50], dim=1)
    truth = boxes.roll(1, 0)
    found, expected = (boxes.clone().requires_grad_() for _ in range(2))
    ours = CIoULoss().of_boxes(found, truth)
    theirs = complete_box_iou_loss(expected, truth)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-5, rtol=1e-4)


def smooth(beta: float, differences: list[list[float]]) -> Tensor:
    references = torch.tensor([[0.0, 0, 10, 10]]).expand(len(differences), -1)
    deltas = CODER.encode(references, references) + torch.tensor(differences)
    return SmoothL1Loss(beta=beta)(CODER, deltas, references, references)


@pytest.mark.parametrize(
    ("beta", "values"),
    [
        (1.0, [0.00125, 0.005, 0.006173, 0.02, 0.125, 0.5, 1.5, 2.5]),
        (1 / 9, [0.01125, 0.045, 0.055556, 0.144444, 0.444444, 0.944444, 1.944444, 2.944444]),
        (0.11, [0.011364, 0.045455, 0.056111, 0.145, 0.445, 0.945, 1.945, 2.945]),
    ],
)
def test_smooth_l1_table(beta: float, values: list[float]) -> None:
    steps = [0.05, 0.1, 1 / 9, 0.2, 0.5, 1, 2, 3]
    found = smooth(beta, [[d, 0, 0, 0] for d in steps])
    torch.testing.assert_close(found, torch.tensor(values), atol=1e-5, rtol=0)


def test_smooth_l1_of_two_anchors() -> None:
    differences = [[0.05, -0.2, 0, 1], [0.3, 0, -0.05, -0.5]]
    assert smooth(1 / 9, differences).sum().item() == pytest.approx(1.800278, abs=1e-5)
    assert smooth(1.0, differences).sum().item() == pytest.approx(0.6925, abs=1e-5)


def test_l1_is_the_sum_of_differences() -> None:
    reference = torch.tensor([[0.0, 0, 10, 10]])
    found = L1Loss()(CODER, torch.tensor([[0.5, -0.25, 0, 1]]), reference, reference)
    assert found.item() == pytest.approx(1.75)


@pytest.mark.parametrize("loss", [SmoothL1Loss(beta=1), L1Loss(), IoULoss(), GIoULoss(), DIoULoss(), CIoULoss()])
def test_every_loss_falls_to_zero_at_the_truth_and_scales_by_its_weight(loss: BoxLoss) -> None:
    reference = torch.tensor([[10.0, 10, 30, 40]])
    truth = torch.tensor([[12.0, 9, 36, 38]])
    exact = CODER.encode(reference, truth)
    assert loss(CODER, exact, reference, truth).item() == pytest.approx(0, abs=1e-5)
    off = loss(CODER, exact + 0.1, reference, truth)
    loss.weight = 3.0
    torch.testing.assert_close(loss(CODER, exact + 0.1, reference, truth), 3 * off)
    assert off > 0


@pytest.mark.parametrize("loss", [IoULoss(), GIoULoss(), DIoULoss(), CIoULoss()])
def test_wild_offsets_stay_finite(loss: BoxLoss) -> None:
    deltas = torch.tensor([[1e4, -1e4, 1e4, -1e4], [0, 0, -1e3, -1e3]], requires_grad=True)
    reference = torch.tensor([[0.0, 0, 10, 10], [5, 5, 6, 6]])
    loss(CODER, deltas, reference, reference + 1).sum().backward()
    assert deltas.grad.isfinite().all()
