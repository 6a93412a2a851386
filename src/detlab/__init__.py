"""detlab: train anchor-based detectors and measure which of their choices matter.

In a notebook: `build_detector(["model=retinanet"], num_classes=3)`, `load(run_or_checkpoint).predict(images)`,
`from_torchvision("fasterrcnn_resnet50_fpn")`, `from_darknet("yolov3.weights")`. A part of your own subclasses one of
the classes named here, or has the methods of a protocol (Matcher, Sampler, Pool, Head). Nothing heavy is imported
before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; _WHERE below is what runs, and a test compares the two
    from detlab.config.compose import build_detector as build_detector
    from detlab.data.formats.source import Source as Source
    from detlab.detectors import Detector as Detector
    from detlab.detectors import from_torchvision as from_torchvision
    from detlab.model.anchors import AnchorGenerator as AnchorGenerator
    from detlab.model.backbones import Backbone as Backbone
    from detlab.model.coders import BoxCoder as BoxCoder
    from detlab.model.heads import Head as Head
    from detlab.model.losses import BoxLoss as BoxLoss
    from detlab.model.losses import ClassificationLoss as ClassificationLoss
    from detlab.model.losses import ObjectnessLoss as ObjectnessLoss
    from detlab.model.matchers import Matcher as Matcher
    from detlab.model.necks import Neck as Neck
    from detlab.model.pools import Pool as Pool
    from detlab.model.samplers import Sampler as Sampler
    from detlab.runs.darknet import from_darknet as from_darknet
    from detlab.runs.loading import load as load
    from detlab.tensors.structures import Batch as Batch
    from detlab.tensors.structures import Detections as Detections
    from detlab.tensors.structures import Level as Level
    from detlab.tensors.structures import Prediction as Prediction
    from detlab.tensors.structures import Proposals as Proposals
    from detlab.tensors.structures import Targets as Targets

_WHERE = {
    "AnchorGenerator": "detlab.model.anchors",
    "Backbone": "detlab.model.backbones",
    "Batch": "detlab.tensors.structures",
    "BoxCoder": "detlab.model.coders",
    "BoxLoss": "detlab.model.losses",
    "ClassificationLoss": "detlab.model.losses",
    "Detections": "detlab.tensors.structures",
    "Detector": "detlab.detectors",
    "Head": "detlab.model.heads",
    "Level": "detlab.tensors.structures",
    "Matcher": "detlab.model.matchers",
    "Neck": "detlab.model.necks",
    "ObjectnessLoss": "detlab.model.losses",
    "Pool": "detlab.model.pools",
    "Prediction": "detlab.tensors.structures",
    "Proposals": "detlab.tensors.structures",
    "Sampler": "detlab.model.samplers",
    "Source": "detlab.data.formats.source",
    "Targets": "detlab.tensors.structures",
    "build_detector": "detlab.config.compose",
    "from_darknet": "detlab.runs.darknet",
    "from_torchvision": "detlab.detectors",
    "load": "detlab.runs.loading",
}
__all__ = sorted(_WHERE)


if not TYPE_CHECKING:  # or type checkers would give every unknown name the type Any

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'detlab' has no attribute {name!r}; it offers {', '.join(__all__)}")
        return getattr(import_module(_WHERE[name]), name)
