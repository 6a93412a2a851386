"""Pictures: boxes where they belong, names that stay on the picture, sheets."""

import numpy as np
import pytest
import torch

from detlab.drawing.pictures import ERROR_COLOURS, PALETTE, Boxes, Mark, comparison_sheet, draw_boxes, draw_errors


@pytest.mark.parametrize("size", [(64, 64), (20, 400), (1200, 800), (9, 7)])
def test_any_size(size: tuple[int, int]) -> None:
    boxes = Boxes(np.array([[0.0, 0, 5, 5], [-50, -50, 4000, 4000]]), np.array([0, 1]), np.array([0.5, 0.9]))
    picture = draw_boxes(np.zeros((*size, 3), np.uint8), boxes, ("a", "b"))
    assert min(picture.size) >= min(320, min(size))
    assert np.asarray(picture).max() > 0


def test_edges_lie_on_the_box() -> None:
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    picture = np.asarray(draw_boxes(image, Boxes(np.array([[100.0, 200, 300, 350]]), np.array([1])), ("a", "b")))
    colour = np.array([int(PALETTE[1][i : i + 2], 16) for i in (1, 3, 5)])
    close = (np.abs(picture.astype(int) - colour) < 30).all(axis=2)
    rows, columns = np.nonzero(close)
    assert abs(columns.min() - 100) <= 2
    assert abs(columns.max() - 300) <= 2
    assert abs(rows.max() - 350) <= 2
    assert not close[230:330, 120:280].any()


def test_a_sheet_holds_pairs() -> None:
    images = [np.full((50, 60, 3), 40 * i, np.uint8) for i in range(3)]
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, int))
    sheet = comparison_sheet(images, [nothing] * 3, [nothing._replace(scores=np.zeros(0))] * 3, ("a",))
    assert sheet.width > sheet.height


@pytest.mark.parametrize("size", [(64, 64), (20, 400), (1200, 800)])
def test_errors_are_drawn_in_their_own_colours_above_a_legend(size: tuple[int, int]) -> None:
    box = np.array([0.1, 0.2, 0.8, 0.9]) * np.array([size[1], size[0]] * 2)
    for kind in ERROR_COLOURS:
        picture = draw_errors(np.full((*size, 3), 90, np.uint8), [Mark(box, kind, "name")], "x" * 300)
        plain = draw_errors(np.full((*size, 3), 90, np.uint8), [], "x")
        assert picture.width == plain.width
        colour = np.array([int(ERROR_COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5)])
        close = (np.asarray(picture).astype(int) == colour).all(axis=2)
        legend = picture.height * 0.9
        assert close[: int(legend)].sum() > 20, kind
        assert close.any(axis=1)[int(close.shape[0] * size[0] / (size[0] + 1)) - 200 :].any()
