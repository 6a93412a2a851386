"""A family, a neck and a RoI head as a user would write them, for the rules to judge."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detlab.detectors import FastRCNN, RetinaNet
from detlab.detectors.detector import Detector, Features
from detlab.model.heads import RoIHead, roi_head
from detlab.model.matchers import Matches
from detlab.model.necks import SingleMap
from detlab.tensors.structures import Batch, Detections, Targets


class Renamed(RetinaNet):
    """A built-in family under another name."""


class OnProposals(FastRCNN):
    """A family that reads regions, under another name."""


class FromScratch(Detector):
    """A family that states nothing: one stage on maps."""

    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Any]:
        return {}

    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        raise AssertionError("only its facts are asked for")


class OneMap(SingleMap):
    """A neck with one map, under another name."""


class NeverForces(nn.Module):
    """A matcher without the option `force_best`, which says that it forces no match."""

    force_best = False

    def forward(self, anchors: Tensor, targets: Targets) -> Matches:
        raise AssertionError("only its facts are asked for")


def own_head(**options: Any) -> RoIHead:
    """A RoI head from a function, as `roi_head` is."""
    return roi_head(**options)


def no_roi_head(**options: Any) -> nn.Module:
    """What a RoI family cannot use, and only its constructor can tell."""
    return nn.Identity()
