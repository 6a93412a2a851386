"""Data sets, their audit, transforms and batches. Sources: COCO, VOC, YOLO, BCCD and generated shapes."""

from detlab.data.audit import AuditReport, DataError
from detlab.data.datamodule import DetectionData
from detlab.data.fingerprint import fingerprint

__all__ = ["AuditReport", "DataError", "DetectionData", "fingerprint"]
