"""Figures as files."""

from pathlib import Path

import numpy as np
from PIL import Image

from detlab.drawing.plots import pixels, recall_bars, save

ROWS = [
    {"from": 0, "to": 32, "boxes": 4, "recall": 0.5, "recall_50": 0.7},
    {"from": 32, "to": None, "boxes": 2, "recall": 0.9, "recall_50": 1.0},
]


def test_the_file_holds_what_is_given_back_and_what_matplotlib_would_write(tmp_path: Path) -> None:
    given = save(recall_bars(ROWS, "side"), tmp_path / "ours.png")
    recall_bars(ROWS, "side").savefig(tmp_path / "theirs.png", dpi=100)
    ours, theirs = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("ours", "theirs"))
    assert np.array_equal(given, ours)
    assert ours.shape == (300, 640, 3)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(pixels(recall_bars(ROWS, "side")), ours)
