"""Every family on a GPU: the losses, gradients and detections of the CPU, whose code paths differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from detlab.config.compose import build_detector
from detlab.detectors import Detector
from detlab.detectors.compiling import Compiled
from detlab.tensors.structures import Batch
from tests.batches import make_batch
from tests.gpu import CUDA, ON_GPU
from tests.training.equality_worker import FAMILIES, RESNET

pytestmark = ON_GPU
COMPILED = ["retinanet", "ssd", "yolo", "faster_rcnn"]


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """No TF32: the comparison is one of algorithms."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def detector_of(family: str) -> Detector:
    """A small detector of a family with the same random weights at each call."""
    torch.manual_seed(0)
    options = [f"model={family}", *RESNET, *FAMILIES[family], "data.canvas=[128, 128]", "model.backbone.weights=null"]
    return build_detector(options, num_classes=5)


def batch() -> Batch:
    """Three images of 128 px: four boxes of several sizes, one, and none."""
    boxes = [[[4, 4, 36, 30], [20, 24, 60, 60], [50, 10, 120, 110], [90, 90, 104, 106]], [[8, 10, 100, 90]], []]
    return make_batch(boxes, [[0, 2, 4, 1], [3], []], side=128, seed=5)


def losses_and_gradients(detector: Detector, given: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """On the CPU, wherever they were made."""
    detector.zero_grad(set_to_none=True)
    losses = detector.loss(given)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {n: p.grad.clone().cpu() for n, p in detector.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu() for name, value in losses.items()}, gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_cpu(family: str) -> None:
    """In double precision: a maximum or a ReLU that falls on its other side would move gradients by a percent."""
    detector = detector_of(family).double().train()
    wanted, wanted_gradients = losses_and_gradients(detector, batch())
    found, gradients = losses_and_gradients(detector.to(CUDA), batch().to(CUDA))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    assert gradients.keys() == wanted_gradients.keys()
    for name, value in wanted_gradients.items():
        difference = float((gradients[name] - value).norm() / value.norm().clamp_min(1e-6))
        assert difference < 1e-5, (name, difference)


@pytest.mark.parametrize("family", FAMILIES)
def test_detections_are_those_of_the_cpu(family: str) -> None:
    """Scores of an untrained detector almost tie, so each box has to be found among the other's, not in its place."""
    detector = detector_of(family).eval()
    with torch.no_grad():
        wanted = detector.detect(batch())
        found = detector.to(CUDA).detect(batch().to(CUDA)).to(torch.device("cpu"))
    for image in range(3):
        ours, theirs = (d.labels[image] >= 0 for d in (found, wanted))
        assert abs(int(ours.sum()) - int(theirs.sum())) <= 0.02 * int(theirs.sum())
        if not theirs.any():
            continue
        same = box_iou(wanted.boxes[image][theirs], found.boxes[image][ours]) > 0.98
        same &= wanted.labels[image][theirs][:, None] == found.labels[image][ours][None]
        same &= (wanted.scores[image][theirs][:, None] - found.scores[image][ours][None]).abs() < 1e-3
        assert float(same.any(dim=1).float().mean()) > 0.97, family


@pytest.mark.parametrize("family", COMPILED)
def test_a_compiled_loss_is_the_eager_one(family: str) -> None:
    torch._dynamo.reset()
    detector = detector_of(family).to(CUDA).train()
    wanted, wanted_gradients = losses_and_gradients(detector, batch().to(CUDA))
    detector.zero_grad(set_to_none=True)
    losses = Compiled(detector).loss(batch().to(CUDA))
    torch.stack(list(losses.values())).sum().backward()
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name].detach().cpu(), value, rtol=1e-3, atol=1e-4)
    for name, parameter in detector.named_parameters():
        if name in wanted_gradients:
            value = wanted_gradients[name]
            assert parameter.grad is not None, name
            assert float((parameter.grad.cpu() - value).norm() / value.norm().clamp_min(1e-6)) < 0.01, name
