"""Detectors: one file a family."""

from detlab.detectors.detector import Detector
from detlab.detectors.faster_rcnn import FasterRCNN
from detlab.detectors.from_torchvision import from_torchvision
from detlab.detectors.retinanet import RetinaNet
from detlab.detectors.rpn import RPNDetector
from detlab.detectors.tta import TTA

__all__ = ["Detector", "FasterRCNN", "RPNDetector", "RetinaNet", "TTA", "from_torchvision"]
