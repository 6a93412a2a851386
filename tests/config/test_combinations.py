"""Every pair of choices trains: one optimiser step, finite losses, a gradient for every parameter."""

from typing import Any

import pytest
import torch

from detlab import build_detector
from detlab.tensors.structures import Batch
from tests.batches import make_batch
from tests.config.combinations import GRID, covering_array, legal, legal_pairs, overrides, pairs

ROWS = covering_array()
SHALLOW = ("resnet18", "vgg16")  # the rows of the default run
SMALL = {  # conv5 of a ResNet-152 over 512 RoIs takes a minute
    "faster_rcnn": ["model.sampler.size=8"],
    "fast_rcnn": ["model.sampler.size=8"],
    "sppnet": ["model.sampler.size=8", "model.head.width=64"],
    "rcnn": ["model.sampler.size=4", "model.pool.crop=112"],  # the smallest that gives VGG-16's fc6 its 7 x 7
    "yolov1": ["model.head.width=16", "model.head.canvas=64"],
}


def step(detector: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    losses = detector.train().loss(batch)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return losses


def case(row: tuple[Any, ...]) -> Any:
    marks = () if row[1] in SHALLOW else (pytest.mark.slow,)
    return pytest.param(row, marks=marks, id="-".join(v for v in row if v))


@pytest.mark.parametrize("row", list(map(case, ROWS)))
def test_pairs_train(row: tuple[Any, ...], small_batch: Batch) -> None:
    detector = build_detector([*overrides(row), *SMALL.get(row[0], [])], num_classes=3)
    losses = step(detector, small_batch)
    assert all(value.isfinite() for value in losses.values()), losses
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient: DDP would stop"
        assert parameter.grad.isfinite().all(), name
        assert parameter.isfinite().all(), name


def test_the_array_covers_every_legal_pair() -> None:
    covered = set().union(*map(pairs, ROWS))
    assert covered == legal_pairs()
    assert all(map(legal, ROWS))
    assert len(ROWS) < 130
    assert {v for row in ROWS for v in row if v} == {v for values in GRID.values() for v in values if v}


@pytest.mark.parametrize("pool", ["roi_align", "roi_pool", "spp"])
def test_every_pool_trains_in_bfloat16(pool: str, small_batch: Batch) -> None:
    """The default precision on CPUs that have it; torchvision's pooling kernels do not take it."""
    detector = build_detector(["model=faster_rcnn", f"model/pool={pool}", "model.sampler.size=8"], num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step(detector, small_batch)
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def alone(model: str) -> torch.nn.Module:
    """A family with its own parts; YOLOv1's neck would leave one cell of 64 px, too few for batch norm."""
    neck = ["model/neck=none"] if model == "yolov1" else []
    return build_detector([f"model={model}", *neck, *SMALL.get(model, [])], num_classes=3)


@pytest.mark.parametrize("model", GRID["model"])
def test_images_without_boxes(model: str, empty_batch: Batch) -> None:
    detector = alone(model)
    losses = step(detector, empty_batch)
    assert all(value.isfinite() for value in losses.values())
    boxes = [value for name, value in losses.items() if name.endswith("loss_box")]
    assert [value.item() for value in boxes] == [0] * len(boxes)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("model", GRID["model"])
def test_targets_without_a_single_row(model: str) -> None:
    """M = 0, as a collate function would give it for a batch of empty images."""
    batch = make_batch([[]], [[]])
    assert batch.targets.labels.shape == (1, 0)
    detector = alone(model)
    assert all(value.isfinite() for value in step(detector, batch).values())
