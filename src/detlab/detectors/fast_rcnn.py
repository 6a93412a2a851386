"""Fast R-CNN: conv layers once per image, RoI pooling, softmax and boxes in one loss (Fast R-CNN, 2015).

The head follows the maps: fc6 and fc7 on VGG-16's C4 (the paper), conv5 on a ResNet's C4, two new layers on a
pyramid (FPN section 4.2). The switches of the paper's ablations:
    section 5.1  model.criterion.box_weight=0 trains the classes only; model.box_outputs=false tests without boxes
    section 5.2  model.test_scales
    section 4.5  model.backbone.frozen_stages: 2 tunes conv3_1 and up
"""

from __future__ import annotations

from typing import Any

from detlab.detectors.on_proposals import ProposalDetector


class FastRCNN(ProposalDetector):
    """A RoI stage on precomputed proposals.

    Args:
        parts: of `ProposalDetector` and `RoIDetector`.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.seal()
