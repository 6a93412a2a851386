"""Backbones: torchvision's networks as named levels C2-C5."""

from detlab.backbones.backbone import Backbone, Tail
from detlab.backbones.resnet import ResNet
from detlab.backbones.vgg import VGG16

__all__ = ["Backbone", "ResNet", "Tail", "VGG16"]
