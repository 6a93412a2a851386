"""FLOPs are counted in the precision of the run, for every family."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detlab.config.compose import build_detector
from tests.batches import make_batch
from tests.training.equality_worker import FAMILIES, RESNET


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_the_same_under_autocast(family: str) -> None:
    """torch 2.11 takes composite operations apart where autocast does not reach: an einsum met two dtypes there."""
    options = [f"model={family}", *RESNET, *FAMILIES[family], "data.canvas=[128, 128]", "model.backbone.weights=null"]
    detector, batch = build_detector(options, num_classes=3).eval(), make_batch([[]], [[]], side=128)
    counts = []
    for dtype in (torch.float32, torch.bfloat16):
        autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
        with torch.no_grad(), autocast, FlopCounterMode(display=False) as counter:
            detector.detect(batch)
        counts.append(counter.get_total_flops())
    assert counts[0] > 0
    assert counts[1] == pytest.approx(counts[0], rel=0.05)  # NMS leaves a second stage a few RoIs more or fewer
