"""What a training step costs, counted and not timed: operations, waits of the host, bytes held at once.

The bounds are what was measured, with 2 % of room. A change that raises a count raises its bound here and says why.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detlab.benchmark.measuring import peak_bytes
from detlab.benchmark.pairs import make_images, make_pair
from detlab.benchmark.step import our_step

CPU = torch.device("cpu")
SIDE, CLASSES, BOXES = 128, 11, 4
BOUNDS = {  # (operations of forward and backward, waits, peak MB) of two images of 128 px, float32
    # The waits: NMS 10, and what is selected around it; on a CPU alone also which locations have a gradient, once for
    # each conv of the dense head on each map that is not small (detlab.tensors.convs), 21 and 13, and whether there is
    # a crowd region, once a matcher. A conv that gathers takes about 45 small operations on indices.
    "retinanet_r18": (3773, 22, 89.4),
    "faster_rcnn_r18": (2673, 44, 187.2),
}


class Counting(TorchDispatchMode):
    """Counts operations, and those whose result's shape or value the host must know."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        self.operations[name] += 1
        selects = name == "index" and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if name in ("nonzero", "_local_scalar_dense", "masked_select", "unique_dim", "nms") or selects:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", BOUNDS)
def test_a_step_costs_no_more_than_it_did(model: str) -> None:
    pair = make_pair(model, classes=CLASSES, side=SIDE, device=CPU)
    step = our_step(pair, make_images(2, SIDE, BOXES, CLASSES, CPU), "fp32")
    step()
    with Counting() as counted:
        step()
    peak = peak_bytes(step, CPU) / 2**20
    operations, waits = sum(counted.operations.values()), sum(counted.waits.values())
    most_operations, most_waits, most_peak = BOUNDS[model]
    assert operations <= most_operations, counted.operations.most_common(12)
    assert waits <= most_waits, counted.waits
    assert peak <= most_peak
