"""The metrics benchmark: both sides agree, and ours is far ahead at any size."""

from __future__ import annotations

import pytest

from detlab.benchmark.metrics import made, run
from detlab.benchmark.options import OptionError


def test_both_sides_agree_and_ours_is_fast(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(images=60, detections=30, classes=8)
    assert result["ratio"] < 0.5
    assert "more at the peak" in capsys.readouterr().out
    assert 0.01 < result["map"]["detlab"] < 0.99


def test_the_made_split_has_the_asked_shape() -> None:
    truth, found = made(5, 9, 4, 3, seed=1)
    assert found.boxes.shape == (5, 9, 4)
    assert len(truth.labels) == 15
    assert (found.scores.diff(dim=1) <= 0).all()
    assert (found.boxes[..., 2:] > found.boxes[..., :2]).all()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(OptionError, match="backend=mine is not known; use one of pycocotools, faster_coco_eval"):
        run(images=2, backend="mine")
