"""SSD: default boxes on maps of decreasing size, with a predictor for each map (SSD: Single Shot MultiBox Detector)."""

from __future__ import annotations

from detlab.detectors.one_stage import OneStage


class SSD(OneStage):
    """Bipartite matching, softmax, hard negatives at most 3:1, losses divided by the batch's matched default boxes.

    Images are warped to one size, as in the paper; the default boxes scale with it.
    """

    resize = "warp"
