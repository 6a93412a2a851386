"""torch.compile where shapes hold still: the whole loss of a one-stage family, the network of a two-stage one.

Of a two-stage family the number of RoIs changes from batch to batch and NMS is no graph; backbone, neck and the RPN's
head are compiled. With a fixed canvas (`data.canvas`) nothing is compiled again but once for a second number of boxes,
from which on that dimension is dynamic; canvases that vary cost a graph each, up to torch's own limit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detlab.detectors.detector import Detector
from detlab.detectors.roi_detector import RoIDetector
from detlab.tensors.structures import Batch


class Compiled:
    """The losses of a detector, compiled.

    The parts of a two-stage detector are changed in place; its weights and their names stay.

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
