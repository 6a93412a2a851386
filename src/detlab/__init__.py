"""detlab: which choice matters in an anchor-based detector?

In a notebook: `build_detector(["model=retinanet"], num_classes=3)`, `load(run_or_checkpoint).predict(images)`,
`from_torchvision("fasterrcnn_resnet50_fpn")`, `from_darknet("yolov3.weights")`. Nothing heavy is imported before it is
used.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "Batch": "detlab.tensors.structures",
    "Detections": "detlab.tensors.structures",
    "Detector": "detlab.detectors",
    "Targets": "detlab.tensors.structures",
    "build_detector": "detlab.config.compose",
    "from_darknet": "detlab.runs.darknet",
    "from_torchvision": "detlab.detectors",
    "load": "detlab.runs.loading",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'detlab' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_WHERE[name]), name)
