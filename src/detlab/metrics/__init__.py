"""Metrics over a whole split: COCO AP, VOC AP, proposal recall, and an error analysis of AP."""
