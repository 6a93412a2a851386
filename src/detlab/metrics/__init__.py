"""Metrics over a whole split: COCO AP, VOC AP and proposal recall; and where AP is lost."""
