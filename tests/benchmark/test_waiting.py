"""Nothing in a one-stage step makes the host wait for a GPU, and in a two-stage step only NMS does.

No GPU is needed: a fake one runs every operation without numbers, and cannot tell a value or a count to the host.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from detlab.benchmark.pairs import make_images
from detlab.config.compose import build_detector
from detlab.detectors import Detector
from detlab.tensors.structures import Batch

CUDA = torch.device("cuda", 0)


class Waits(TorchDispatchMode):
    """Counts operations for which the host waits: selections, values, and copies from or to a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        out = True if name == "_local_scalar_dense" else func(*args, **kwargs)  # "is NMS done?"
        if name in ("nonzero", "_local_scalar_dense", "masked_select", "nms"):
            self.found[name] += 1
        if name == "index" and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]):
            self.found["index by a mask"] += 1
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if source.device.type != out.device.type:
                self.found[f"copy from {source.device.type}"] += 1
        return out


class Loss(nn.Module):
    """A detector's losses as a forward, which `functional_call` wants."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> Tensor:
        """The sum of all losses."""
        return torch.stack(list(self.detector.loss(batch).values())).sum()


@pytest.mark.parametrize(("family", "allowed"), [("retinanet", set()), ("faster_rcnn", {"_local_scalar_dense"})])
def test_what_waits_in_a_step(family: str, allowed: set[str]) -> None:
    loss = Loss(build_detector([f"model={family}", "model.backbone.weights=null"], num_classes=5).train())
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        state = {k: mode.from_tensor(v).to(CUDA) for k, v in loss.state_dict().items()}
        batch = make_images(2, 128, 4, 5, torch.device("cpu")).to(CUDA)
        with Waits():
            functional_call(loss, state, (batch,))  # makes the anchors of this canvas
        with Waits() as waits:
            total = functional_call(loss, state, (batch,))
    assert total.device == CUDA
    assert set(waits.found) <= allowed, waits.found
    assert waits.found.total() == len(allowed)
