"""Detectors: one file a family."""

from detlab.detectors.detector import Detector
from detlab.detectors.faster_rcnn import FasterRCNN
from detlab.detectors.from_torchvision import from_torchvision
from detlab.detectors.retinanet import RetinaNet
from detlab.detectors.rpn import RPNDetector

__all__ = ["Detector", "FasterRCNN", "RPNDetector", "RetinaNet", "from_torchvision"]
