"""Detectors: one file per family."""

from detlab.detectors.detector import Detector
from detlab.detectors.fast_rcnn import FastRCNN
from detlab.detectors.faster_rcnn import FasterRCNN
from detlab.detectors.one_stage import OneStage
from detlab.detectors.rcnn import RCNN
from detlab.detectors.refinedet import RefineDet
from detlab.detectors.retinanet import RetinaNet
from detlab.detectors.rpn import RPNDetector
from detlab.detectors.sppnet import SPPNet
from detlab.detectors.ssd import SSD
from detlab.detectors.torchvision.convert import from_torchvision
from detlab.detectors.tta import TTA
from detlab.detectors.yolo import YOLO, YOLOv1

__all__ = [
    "Detector",
    "FastRCNN",
    "FasterRCNN",
    "OneStage",
    "RCNN",
    "RPNDetector",
    "RefineDet",
    "RetinaNet",
    "SPPNet",
    "SSD",
    "TTA",
    "YOLO",
    "YOLOv1",
    "from_torchvision",
]
