"""Data sets, their audit, transforms and batches. Formats: COCO, VOC, YOLO, BCCD and generated shapes."""

from detlab.data.audit import AuditReport
from detlab.data.datamodule import DetectionData
from detlab.data.fingerprint import fingerprint

__all__ = ["AuditReport", "DetectionData", "fingerprint"]
