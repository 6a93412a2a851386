"""torch.compile where shapes are fixed: the whole loss of a one-stage family, the network of a two-stage one.

In a two-stage family the number of RoIs changes from batch to batch, and NMS cannot be part of a graph. So only
backbone, neck and the RPN's head are compiled. With a fixed canvas (`data.canvas`) there is one recompilation, at the
second number of boxes, which makes that dimension dynamic. With varying canvases every canvas costs a graph, up to
torch's own limit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detlab.detectors.detector import Detector
from detlab.detectors.roi_detector import RoIDetector
from detlab.tensors.structures import Batch


class Compiled:
    """The losses of a detector, compiled.

    The parts of a two-stage detector are compiled in place; its weights and their names do not change.

    Args:
        backend: torch.compile's; aot_eager traces without generating code.
    """

    def __init__(self, detector: Detector, backend: str = "inductor") -> None:
        self._loss = detector.loss
        if isinstance(detector, RoIDetector):
            rpn = getattr(detector, "rpn", None)
            for module in (detector.backbone, detector.neck, *([] if rpn is None else [rpn.head])):
                module.compile(backend=backend)
        else:
            self._loss = torch.compile(detector.loss, backend=backend)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """As `Detector.loss`."""
        return self._loss(batch)


def graphs() -> int:
    """How many graphs this process has compiled so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
