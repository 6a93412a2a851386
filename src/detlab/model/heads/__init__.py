"""Heads: dense ones over feature maps, RoI ones over pooled features."""

from detlab.model.heads.dense import DenseHead
from detlab.model.heads.head import Head
from detlab.model.heads.per_level import PerLevelHead
from detlab.model.heads.roi import ConvFCHead, FCHead, RoIHead, roi_head
from detlab.model.heads.svd import truncate_svd
from detlab.model.heads.yolo import GridHead, Local, YOLOHead

__all__ = [
    "ConvFCHead",
    "DenseHead",
    "FCHead",
    "GridHead",
    "Head",
    "Local",
    "PerLevelHead",
    "RoIHead",
    "YOLOHead",
    "roi_head",
    "truncate_svd",
]
