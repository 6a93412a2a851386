"""RetinaNet: dense classification and regression of anchors on a pyramid (Focal Loss for Dense Object Detection)."""

from __future__ import annotations

from detlab.detectors.one_stage import OneStage


class RetinaNet(OneStage):
    """One head of four convs, shared by P3-P7; all anchors enter the focal loss."""
