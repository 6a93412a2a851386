"""Necks: backbone maps to the maps that heads read."""

from detlab.necks.fpn import FPN
from detlab.necks.maps import Hierarchy, SingleMap
from detlab.necks.neck import Neck
from detlab.necks.spp import SPP, SPPBlock
from detlab.necks.ssd_extras import SSDExtras
from detlab.necks.transfer import TransferConnection

__all__ = ["FPN", "SPP", "Hierarchy", "Neck", "SPPBlock", "SSDExtras", "SingleMap", "TransferConnection"]
