"""LightningModules. Every family trains through `DetectionModule`; what differs lies in its detector."""

from detlab.modules.caching import CachingModule, ImageCache
from detlab.modules.detection import DetectionModule

__all__ = ["CachingModule", "DetectionModule", "ImageCache"]
