"""Figures as files."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from detlab.drawing.plots import GREY, differences, pixels, png, recall_bars, save

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


def test_intervals_are_drawn_row_by_row_in_the_colour_of_their_verdict() -> None:
    groups = {
        "first?": [("a", 0.1, 0.05, 0.15, "better"), ("b", -0.2, -0.3, -0.1, "worse")],
        "second?": [("c", 0.0, -0.1, 0.1, "undecided")],
    }
    figure = differences(groups)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["", "a", "b", "", "c"]
    spans = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and list(line.get_xdata()) != [0, 0]]
    assert [(list(line.get_xdata()), line.get_ydata()[0], line.get_color()) for line in spans] == [
        ([0.05, 0.15], 1, "#0072B2"),
        ([-0.3, -0.1], 2, "#D55E00"),
        ([-0.1, 0.1], 4, GREY),
    ]
    with Image.open(io.BytesIO(png(figure))) as picture:
        assert np.array_equal(np.asarray(picture), pixels(figure))
