"""Pictures: boxes where they belong, names that stay on the picture, sheets."""

import numpy as np
import pytest
import torch

from detlab.drawing import fonts
from detlab.drawing.fonts import legible
from detlab.drawing.pictures import (
    ERROR_COLOURS,
    GAP,
    PALETTE,
    Boxes,
    Mark,
    comparison_sheet,
    draw_boxes,
    draw_errors,
    picture_sheet,
)

NOTHING = Boxes(np.zeros((0, 4)), np.zeros(0, int))


@pytest.mark.parametrize("size", [(64, 64), (20, 400), (1200, 800), (9, 7)])
def test_any_size(size: tuple[int, int]) -> None:
    boxes = Boxes(np.array([[0.0, 0, 5, 5], [-50, -50, 4000, 4000]]), np.array([0, 1]), np.array([0.5, 0.9]))
    picture = draw_boxes(np.zeros((*size, 3), np.uint8), boxes, ("a", "b"))
    assert min(picture.size) >= min(320, min(size))
    assert np.asarray(picture).max() > 0


def test_a_strip_is_not_blown_up() -> None:
    """3000x20 px enlarged to a shorter side of 320 were 48000x320."""
    assert draw_boxes(np.zeros((20, 3000, 3), np.uint8), NOTHING, ()).size == (3000, 20)
    assert draw_boxes(np.zeros((20, 400, 3), np.uint8), NOTHING, ()).size == (1200, 60)
    assert draw_boxes(np.zeros((60, 64, 3), np.uint8), NOTHING, ()).size == (384, 360)


def test_a_class_has_its_colour_whatever_else_is_there() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    box = np.array([[100.0, 200, 300, 350]])
    alone = draw_boxes(image, Boxes(box, np.array([2])), ("a", "b", "c"))
    second = draw_boxes(image, Boxes(np.concatenate([box / 4, box]), np.array([0, 2])), ("a", "b", "c"))
    assert alone.getpixel((100, 300)) == second.getpixel((100, 300)) == (0x00, 0x9E, 0x73)


@pytest.mark.parametrize("size", [(40, 60), (300, 900), (2, 800)])
def test_a_fitted_picture_has_its_boxes_where_they_belong(size: tuple[int, int]) -> None:
    height, width = size
    box = np.array([[0.5 * width, 0, width, height]])
    drawn = np.asarray(draw_boxes(np.zeros((*size, 3), np.uint8), Boxes(box, np.array([0])), ("",), fit=400))
    assert max(drawn.shape) == 400
    lit = drawn.max(axis=2) > 100
    assert not lit[:, :195].any()
    assert lit[:, 195:].any()


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


def test_a_sheet_of_pictures_has_rows_and_captions() -> None:
    pictures = [draw_boxes(np.full((30, 40, 3), 90, np.uint8), NOTHING, (), fit=100) for _ in range(5)]
    sheet = np.asarray(picture_sheet(pictures, ["\x1b[31m" * 9, "", "a", "b", "c"], 2))
    assert sheet.shape[1] == 2 * (100 + GAP)
    assert (sheet == 90).all(axis=2).sum() == 5 * 100 * 75
    assert (sheet[:15, :100] < 100).any()
    assert not (sheet[:15, 100 + GAP :] < 100).any()


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


@pytest.mark.parametrize("name", ["кошка", "γάτα", "חתול", "قطة", "katze_\N{SNOWMAN}"])
def test_names_of_other_scripts_are_written_in_a_font_that_has_them(name: str) -> None:
    text, font = legible(name, 20)
    assert text == name
    missing = font.getmask("\uffff").getbbox(), bytes(font.getmask("\uffff"))
    for letter in name:
        assert (font.getmask(letter).getbbox(), bytes(font.getmask(letter))) != missing


def test_letters_that_no_font_has_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert legible("a", 20)[0] == "a"
    monkeypatch.setattr(fonts, "_face", lambda characters: None)  # of a machine without such fonts
    assert legible("\U00012000x", 20)[0] == "U+12000x"
    assert legible("猫", 20)[0] == "U+732B" != legible("犬", 20)[0]
    boxes = Boxes(np.array([[10.0, 200, 300, 350]]), np.array([0]))
    cat, dog = (np.asarray(draw_boxes(np.zeros((400, 400, 3), np.uint8), boxes, (n,))) for n in ("猫", "犬"))
    assert (cat != dog).any()
