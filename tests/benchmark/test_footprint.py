"""A step on a GPU that is not there: how it is counted, and what it may cost at 16 images of 800 x 1344 px."""

from __future__ import annotations

import pytest
import torch

from detlab.benchmark.footprint import PHASES, Counting, fake_gpu, measure

CLASSES = (80, 365, 1203)
WAITS = {"retinanet": (0, 1), "ssd": (0, 1), "refinedet": (0, 1), "yolo": (0, 1), "faster_rcnn": (1, 2), "rpn": (0, 1)}
OPERATIONS = {  # in training and in evaluation, at each number of classes; measured with torch 2.14
    "retinanet": ((1914, 3062, 6342), (1663, 2815, 4015)),
    "ssd": ((2132, 2293, 2753), (2128, 2352, 2512)),
    "refinedet": ((3730, 3822, 4144), (3561, 3689, 3929)),
    "yolo": ((2045, 2137, 2436), (1954, 2274, 2762)),
    "faster_rcnn": ((2694, 2694, 2694), (2283, 2283, 2283)),
    "rpn": ((1309, 1309, 1309), (1324, 1324, 1324)),
    "fast_rcnn": ((874, 874, 874), (949, 949, 949)),
    "sppnet": ((663, 663, 663), (763, 763, 763)),
}
WAITS |= {"fast_rcnn": (0, 1), "sppnet": (0, 1)}  # in training and in evaluation: one for each NMS


def test_bytes_are_held_as_long_as_their_tensors() -> None:
    with fake_gpu():
        given = torch.zeros(1000)
        with Counting() as counted:
            first = given + 1  # 4000 bytes
            first = first * 2  # 4000 more, then the first are dropped
            half = first[:500]  # a view
            assert counted.held == 4000
            assert counted.peak == 8000
            del first
            assert counted.held == 4000
            del half
            assert counted.held == 0
    assert dict(counted.operations) == {"add": 1, "mul": 1, "slice": 1}
    assert not counted.waits


def test_waits_are_found_and_answered() -> None:
    with fake_gpu():
        x = torch.zeros(10)
        assert x.is_cuda
        with Counting() as counted:
            assert bool((x > 0).all())
            x.nonzero()
    assert dict(counted.waits) == {"_local_scalar_dense": 1, "nonzero": 1}


@pytest.mark.slow
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("family", WAITS)
def test_bounds_of_a_large_step(family: str, phase: str, classes: int) -> None:
    """One wait for each NMS; nothing above 2 GiB but the logits in bfloat16 and their gradients; few operations."""
    found = measure([f"model={family}"], classes, phase)
    usual = OPERATIONS[family][phase == "evaluate"][CLASSES.index(classes)]
    assert sum(found.operations.values()) <= 1.05 * usual, found.operations.most_common(12)
    assert sum(found.waits.values()) <= WAITS[family][phase == "evaluate"], found.waits
    for name in found.largest:
        assert name.split()[1] == "bfloat16", name
    assert found.peak < (24 * 2**30 if classes == 1203 else 13 * 2**30)
