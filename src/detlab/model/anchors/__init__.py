"""Anchors: reference boxes tiled over feature maps.

Order of rows everywhere: level, row, column, then the boxes of a location.
"""

from detlab.model.anchors.default_boxes import DefaultBoxes
from detlab.model.anchors.generator import AnchorGenerator
from detlab.model.anchors.shapes import CanvasBoxes, Shapes
from detlab.model.anchors.tiled import Anchors, CaffeAnchors, deal

__all__ = ["AnchorGenerator", "Anchors", "CaffeAnchors", "CanvasBoxes", "DefaultBoxes", "Shapes", "deal"]
