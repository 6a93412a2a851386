"""RoI feature extraction: RoIAlign, RoIPool and spatial pyramid pooling over maps; warped crops of the image."""

from detlab.model.pools.pool import Pool
from detlab.model.pools.roi import RoIAlign, RoIPool, SpatialPyramidPool, fpn_level
from detlab.model.pools.warp import WarpedCrop

__all__ = ["Pool", "RoIAlign", "RoIPool", "SpatialPyramidPool", "WarpedCrop", "fpn_level"]
