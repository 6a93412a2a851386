"""Metrics over a whole split: COCO AP, VOC AP and proposal recall; and where AP is lost."""

from detlab.metrics.breakdown import ImageErrors, error_report, worst_images
from detlab.metrics.coco_ap import CocoAP, coco_ap, coco_ap_at
from detlab.metrics.collected import CollectedDetections, Found, as_one_class, coco_results, coco_truth
from detlab.metrics.proposal_recall import ProposalRecall, proposal_recall, proposal_recall_at
from detlab.metrics.summary import summary_rows
from detlab.metrics.voc_ap import VocAP, voc_ap, voc_ap_of

__all__ = [
    "CocoAP",
    "CollectedDetections",
    "Found",
    "ImageErrors",
    "ProposalRecall",
    "VocAP",
    "as_one_class",
    "coco_ap",
    "coco_ap_at",
    "coco_results",
    "coco_truth",
    "error_report",
    "proposal_recall",
    "proposal_recall_at",
    "summary_rows",
    "voc_ap",
    "voc_ap_of",
    "worst_images",
]
