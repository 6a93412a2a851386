"""YOLO's losses have darknet's deltas as negative gradients, by an oracle of plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detlab import build_detector
from detlab.model.anchors import CanvasBoxes, Shapes
from detlab.tensors.structures import Level, Prediction, Targets
from tests.detectors.darknet_oracle import Box, detection_deltas, region_deltas, yolo_deltas

CPU = torch.device("cpu")
CLASSES, SIDE = 4, 416
NINE = [(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)]
FIVE = [(42.3072, 55.4064), (102.168, 128.30208), (161.78784, 259.16544), (303.07584, 154.89696), (359.5648, 320.2272)]
THREE = [Level("P3", 1, 8), Level("P4", 1, 16), Level("P5", 1, 32)]

Truths = list[list[tuple[Box, int]]]


def criterion(model: str) -> nn.Module:
    with torch.device("meta"):  # it has no weights
        return build_detector([f"model={model}"], num_classes=CLASSES).criterion


def random_truths(seed: int, counts: tuple[int, ...], smallest: float = 0.03) -> Truths:
    """Boxes anywhere; the last shares the first's anchor, and the centre of the second lies on a border of cells."""
    g = np.random.default_rng(seed)
    images: Truths = []
    for count in counts:
        rows: list[tuple[Box, int]] = []
        for _ in range(count):
            w, h = np.exp(g.uniform(np.log(smallest), np.log(0.9), 2))
            x, y = g.uniform(w / 2, 1 - w / 2), g.uniform(h / 2, 1 - h / 2)
            rows.append(((float(x), float(y), float(w), float(h)), int(g.integers(CLASSES))))
        if count > 2:
            (x, y, w, h), label = rows[0]
            rows[-1] = ((x, y, w * 0.98, h * 1.01), (label + 1) % CLASSES)  # same anchor, another class
            rows[1] = ((0.25, 0.5, 0.2, 0.3), 0)  # 0.25 and 0.5 of 52 cells lie on borders
        images.append(rows)
    return images


def targets_of(truths: Truths, side: int, dtype: torch.dtype = torch.float64) -> Targets:
    most = max(map(len, truths))
    boxes, labels = torch.zeros(len(truths), most, 4, dtype=dtype), torch.full((len(truths), most), -1)
    for i, rows in enumerate(truths):
        for m, ((x, y, w, h), label) in enumerate(rows):
            boxes[i, m] = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dtype=torch.float64) * side
            labels[i, m] = label
    none = torch.zeros_like(labels, dtype=torch.bool)
    return Targets(boxes, labels, (boxes[..., 2:] - boxes[..., :2]).prod(-1), none, none)


def prediction_of(every: Tensor) -> Prediction:
    """[B, A, 5 + K] -> a Prediction."""
    return Prediction(every[..., 5:], every[..., :4], every[..., 4])


def gradient(part: nn.Module, every: Tensor, references: Tensor, truths: Truths, side: int, seen: int | None) -> Tensor:
    """Gradient by every output, of the losses times the images: sums, as darknet's."""
    every = every.clone().requires_grad_()
    targets = targets_of(truths, side)
    given = None if seen is None else torch.tensor(seen)
    losses = part(prediction_of(every), references.double(), targets, CLASSES, (side, side), given)
    (sum(losses.values()) * len(every)).backward()
    return every.grad


@pytest.mark.parametrize("seed", range(3))
def test_yolov3_learns_what_darknet_learns(seed: int) -> None:
    """Two images with boxes and one without; predictions near boxes are left out, and more than one label is kept."""
    g = torch.Generator().manual_seed(seed)
    truths = random_truths(seed, (7, 3, 0))
    references = Shapes(shapes=NINE).with_cells(THREE, (SIDE, SIDE), CPU)
    assert references.shape == (1, 10_647, 8)
    every = torch.randn(3, 10_647, 5 + CLASSES, generator=g, dtype=torch.float64)
    part = criterion("yolo")
    found = gradient(part, every, references, truths, SIDE, None)
    split = every.split([8112, 2028, 507], dim=1)
    sides = [52, 26, 13]
    levels = [x.view(3, s, s, 3, -1).numpy() for x, s in zip(split, sides, strict=True)]
    deltas = yolo_deltas(levels, [(w / SIDE, h / SIDE) for w, h in NINE], truths, part.obj_loss.ignore)
    wanted = torch.cat([torch.from_numpy(d).reshape(3, -1, 5 + CLASSES) for d in deltas], dim=1)
    assert (wanted[..., 4] == 0).sum() > 5  # some are ignored
    assert ((wanted[..., 5:] > 0).sum(-1) == 2).any()  # one anchor has two classes
    torch.testing.assert_close(found, -wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_yolov2_learns_what_darknet_learns(seed: int, warm: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    truths = random_truths(seed, (6, 4, 0), smallest=0.1)
    references = Shapes(shapes=FIVE).with_cells([Level("P5", 1, 32)], (SIDE, SIDE), CPU)
    assert references.shape == (1, 845, 8)
    every = torch.randn(3, 845, 5 + CLASSES, generator=g, dtype=torch.float64) * 0.5
    found = gradient(criterion("yolov2"), every, references, truths, SIDE, 12_799 if warm else 12_800)
    anchors = [(w / SIDE, h / SIDE) for w, h in FIVE]
    wanted = region_deltas(every.view(3, 13, 13, 5, -1).numpy(), anchors, truths, warm=warm)
    assert (wanted[..., 4] == 0).any()
    assert (np.abs(wanted[..., 0]) > 0).mean() == (1 if warm else pytest.approx(0.004, abs=0.002))
    torch.testing.assert_close(found, -torch.from_numpy(wanted).reshape(3, 845, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_yolov1_learns_what_darknet_learns(seed: int) -> None:
    """Predictions of all sizes, negative roots and none that overlaps among them; two boxes in one cell."""
    side = 448
    g = torch.Generator().manual_seed(seed)
    truths = random_truths(seed, (6, 4, 0))
    references = CanvasBoxes(boxes=2).with_cells([Level("G6", 1, 64)], (side, side), CPU)
    assert references.shape == (1, 98, 8)
    every = torch.randn(3, 98, 5 + CLASSES, generator=g, dtype=torch.float64)
    every[..., 2:4] *= 0.4
    every[0, :, :2] += 8  # far off: no overlap, the least distance decides
    every.view(3, 49, 2, -1)[:, :, 1, 5:] = every.view(3, 49, 2, -1)[:, :, 0, 5:]  # a cell's boxes share its classes
    found = gradient(criterion("yolov1"), every, references, truths, side, None).view(3, 7, 7, 2, -1)
    found[..., 0, 5:], found[..., 1, 5:] = found[..., 5:].sum(-2), torch.zeros(())
    wanted = torch.from_numpy(detection_deltas(every.view(3, 7, 7, 2, -1).numpy(), truths))
    responsible = (wanted[..., 0] != 0).nonzero()[:, 3]
    assert 5 <= len(responsible) <= 9  # of ten boxes at least two share a cell
    assert set(responsible.tolist()) == {0, 1}
    torch.testing.assert_close(found, -wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", ["yolo", "yolov2"])
def test_an_image_does_not_see_anothers_boxes(model: str) -> None:
    """A prediction that fits a box of another image is a negative in its own."""
    levels, shapes = (THREE, Shapes(shapes=NINE)) if model == "yolo" else ([Level("P5", 1, 32)], Shapes(shapes=FIVE))
    references = shapes.with_cells(levels, (SIDE, SIDE), CPU).double()
    truths: Truths = [[], [((0.5, 0.5, 0.4, 0.4), 1)]]
    deltas = torch.zeros(2, references.shape[1], 4, dtype=torch.float64)
    assigned = criterion(model).assign(deltas, references, targets_of(truths, SIDE), CLASSES)
    assert assigned.negative[0].all()
    assert not assigned.positive[0].any()
    assert assigned.positive[1].sum() == 1
    assert not (assigned.negative[1] | assigned.positive[1]).all()


def test_float32_gradients_are_as_exact() -> None:
    """The step runs in float32; its gradients differ from darknet's by rounding alone."""
    truths = random_truths(1, (6, 4))
    references = Shapes(shapes=NINE).with_cells(THREE, (SIDE, SIDE), CPU)
    every = torch.randn(2, 10_647, 5 + CLASSES, generator=torch.Generator().manual_seed(1)).requires_grad_()
    part = criterion("yolo")
    losses = part(prediction_of(every), references, targets_of(truths, SIDE, torch.float32), CLASSES, (SIDE, SIDE))
    sum(losses.values()).backward()
    double = gradient(part, every.detach().double(), references, truths, SIDE, None) / 2
    torch.testing.assert_close(every.grad.double(), double, atol=2e-5, rtol=1e-4)
