"""What a step really costs on a GPU: the waits that were counted without one, and about the same peak of memory."""

from __future__ import annotations

import pytest

from detlab.benchmark.footprint import PHASES, measure, measure_on_gpu
from tests.benchmark.test_footprint import WAITS
from tests.gpu import ON_GPU

pytestmark = ON_GPU


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("family", WAITS)
def test_waits_and_peak_are_those_that_were_counted(family: str, phase: str) -> None:
    """Libraries hold scratch space, and the allocator rounds up: the real peak may be a little above."""
    size = {"images": 4, "canvas": (512, 640), "boxes": 30}
    real = measure_on_gpu([f"model={family}"], 365, phase, repeats=1, **size)  # type: ignore[arg-type]
    counted = measure([f"model={family}"], 365, phase, **size)  # type: ignore[arg-type]
    turns = 4 if family == "sppnet" else 0  # of NMS: an untrained SPPnet's boxes are its proposals, which overlap
    assert real.waits <= WAITS[family][phase == "evaluate"] + turns
    assert 0.6 < real.peak / counted.peak < 1.5, (real.peak, counted.peak)
