"""An evaluation computes once what its loss and its detection share, with the results of both by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detlab.config.compose import build_detector
from detlab.detectors import Detector
from tests.batches import make_batch

SMALL = ["model.backbone.weights=null", "model.backbone.norm=gn", "model.backbone.depth=18"]
FAMILIES = {
    "retinanet": ["model.neck.width=16", "model.head.width=16", "model.head.depth=1"],
    "faster_rcnn": ["model.neck.width=16", "model.head.width=16", "model.sampler.size=16"],
    "rpn": ["model.neck.width=16"],
}


def calls_of(detector: Detector, kind: type[nn.Module] | str) -> list[Any]:
    """Every later call of the detector's module of this class name."""
    called: list[Any] = []
    (module,) = (m for m in detector.modules() if type(m).__name__ == kind)
    module.register_forward_hook(lambda *given: called.append(given[2]))
    return called


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_heads_and_proposals_are_made_once(family: str) -> None:
    detector = build_detector([f"model={family}", *SMALL, *FAMILIES[family]], num_classes=3).eval()
    batch = make_batch([[[4.0, 4, 30, 30]], [[10.0, 20, 60, 50]]], [[1], [2]], seed=1)._replace(proposals=None)
    alone = detector.detect(batch)
    losses = detector.loss(batch)
    dense = calls_of(detector, "DenseHead")
    selected = calls_of(detector, "ProposalDetect") if family != "retinanet" else [None]
    found = detector.evaluate(batch)
    assert len(dense) == len(selected) == 1
    assert all(torch.equal(a, b) for a, b in zip(found.detections, alone, strict=True))
    assert found.losses.keys() == losses.keys()
    for name, value in found.losses.items():
        if family != "faster_rcnn" or name.startswith("rpn/"):
            assert torch.equal(value, losses[name])
        assert value.isfinite()
    assert (found.proposals is not None) == (family == "faster_rcnn")
    assert detector.evaluate(batch, with_loss=False).losses == {}
