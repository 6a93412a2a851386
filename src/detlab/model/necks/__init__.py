"""Necks turn backbone maps into the maps that heads read."""

from detlab.model.necks.fpn import FPN
from detlab.model.necks.maps import Hierarchy, SingleMap
from detlab.model.necks.neck import Neck
from detlab.model.necks.spp import SPP, SPPBlock
from detlab.model.necks.ssd_extras import SSDExtras
from detlab.model.necks.transfer import TransferConnection
from detlab.model.necks.yolo import YOLOFPN, Passthrough, Reorg, YOLOGrid

__all__ = [
    "FPN",
    "SPP",
    "YOLOFPN",
    "Hierarchy",
    "Neck",
    "Passthrough",
    "Reorg",
    "SPPBlock",
    "SSDExtras",
    "SingleMap",
    "TransferConnection",
    "YOLOGrid",
]
