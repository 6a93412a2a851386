"""Metrics over a whole split: COCO AP and proposal recall."""

from detlab.metrics.coco_ap import CocoAP
from detlab.metrics.proposal_recall import ProposalRecall
from detlab.metrics.summary import summary_rows

__all__ = ["CocoAP", "ProposalRecall", "summary_rows"]
