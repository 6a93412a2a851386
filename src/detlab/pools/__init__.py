"""RoI feature extraction: RoIAlign, RoIPool and spatial pyramid pooling over one map or a pyramid."""

from detlab.pools.roi import RoIAlign, RoIPool, SpatialPyramidPool, fpn_level

__all__ = ["RoIAlign", "RoIPool", "SpatialPyramidPool", "fpn_level"]
