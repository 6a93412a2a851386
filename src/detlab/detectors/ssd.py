"""SSD: default boxes on maps of falling size, a predictor each (SSD: Single Shot MultiBox Detector)."""

from __future__ import annotations

from detlab.detectors.one_stage import OneStage


class SSD(OneStage):
    """Bipartite matching, softmax, the hardest negatives at most 3:1, divided by the matched boxes of the batch.

    Images are warped to one size, as in the paper; the default boxes follow it.
    """

    resize = "warp"
