"""Backbones: torchvision's and darknet's networks as named levels C2-C5."""

from detlab.model.backbones.backbone import Backbone, Tail
from detlab.model.backbones.darknet import Darknet
from detlab.model.backbones.resnet import ResNet
from detlab.model.backbones.vgg import VGG16

__all__ = ["Backbone", "Darknet", "ResNet", "Tail", "VGG16"]
