"""RetinaNet: dense classification and regression of anchors on a pyramid (Focal Loss for Dense Object Detection)."""

from __future__ import annotations

from detlab.detectors.one_stage import OneStage


class RetinaNet(OneStage):
    """One head with four convs, shared by P3-P7; every anchor enters the focal loss."""
