"""Boxes drawn on pictures, with colours for colour-blind readers and text that is legible at any picture size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detlab.drawing.fonts import default_font, legible
from detlab.system.text import shortened, visible

# Okabe and Ito's palette without black: distinguishable for all common types of colour vision
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
ERROR_COLOURS = {  # also Okabe and Ito's palette; missed boxes are dashed as well
    "true": "#009E73",
    "localisation": "#E69F00",
    "classification": "#CC79A7",
    "duplicate": "#56B4E9",
    "background": "#D55E00",
    "both": "#0072B2",
    "missed": "#F0E442",
}
SHORTEST_SIDE = 320  # px; smaller pictures are enlarged before drawing
LONGEST_SIDE = 1333  # px; largest side of an enlarged picture
TEXT_SHARE = 1 / 32  # font size as a share of the shorter side
SMALLEST_FONT, LARGEST_FONT = 11, 240  # px; a picture of 7680 px is still legible when fitted to a screen
LONGEST_NAME = 80  # characters of a class's name in a picture
GAP = 6  # px between pictures of a sheet


class Boxes(NamedTuple):
    """The boxes to draw on one picture."""

    boxes: np.ndarray  # [n, 4] xyxy, px of the picture
    labels: np.ndarray  # [n]
    scores: np.ndarray | None = None  # [n]; None for ground truth


def draw_boxes(
    image: np.ndarray | Tensor, boxes: Boxes, class_names: Sequence[str], fit: int | None = None
) -> Image.Image:
    """A picture with its boxes, class names and scores; a class has the same colour everywhere, by its label.

    Args:
        image: uint8 [H, W, 3], or a tensor [3, H, W].
        boxes: drawn in order of rising score, so that the best is on top.
        class_names: names by label.
        fit: px, longer side of the result; None to enlarge small pictures only.
    """
    picture = _enlarged(_as_picture(image)) if fit is None else fitted(image, fit)
    scale = max(picture.size) / max(_size(image))
    canvas = ImageDraw.Draw(picture)
    short = min(picture.size)
    font = _font(short)
    line = max(2, round(short / 200))
    order = range(len(boxes.labels)) if boxes.scores is None else np.argsort(boxes.scores)
    for i in order:
        colour = PALETTE[int(boxes.labels[i]) % len(PALETTE)]
        text = shortened(str(class_names[int(boxes.labels[i])]), LONGEST_NAME)
        if boxes.scores is not None:
            text += f" {boxes.scores[i]:.2f}"
        _draw_one(canvas, picture.size, (np.asarray(boxes.boxes[i]) * scale).tolist(), text, colour, line, font)
    return picture


def comparison_sheet(
    images: Sequence[np.ndarray | Tensor],
    truths: Sequence[Boxes],
    predictions: Sequence[Boxes],
    class_names: Sequence[str],
    pairs_per_row: int = 2,
) -> Image.Image:
    """One picture of all images, each as a pair: ground truth on the left, predictions on the right."""
    pairs = []
    for image, truth, predicted in zip(images, truths, predictions, strict=True):
        left, right = draw_boxes(image, truth, class_names), draw_boxes(image, predicted, class_names)
        pair = Image.new("RGB", (left.width + right.width + GAP // 2, left.height + _caption(left)), "white")
        for x, side, title in ((0, left, "ground truth"), (left.width + GAP // 2, right, "predicted")):
            ImageDraw.Draw(pair).text((x + 4, 2), title, "black", ImageFont.load_default(size=_caption(left) - 6))
            pair.paste(side, (x, _caption(left)))
        pairs.append(pair)
    return _in_rows(pairs, pairs_per_row)


def picture_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """One picture of all pictures in rows, each below its caption, which is cut at the picture's width."""
    font, height = _font(SHORTEST_SIDE), round(1.6 * SMALLEST_FONT)
    cells = []
    for picture, caption in zip(pictures, captions, strict=True):
        cell = Image.new("RGB", (picture.width, picture.height + height), "white")
        words, face = legible(visible(shortened(caption, LONGEST_NAME)), font.size)
        ImageDraw.Draw(cell).text((2, 1), words, "black", font=face)
        cell.paste(picture, (0, height))
        cells.append(cell)
    return _in_rows(cells, columns)


def fitted(image: np.ndarray | Tensor, side: int) -> Image.Image:
    """A picture whose longer side is `side` px; enlarged without smoothing, reduced with antialiasing."""
    picture = _as_picture(image)
    scale = side / max(picture.size)
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), way)


class Mark(NamedTuple):
    """One box of a picture of errors."""

    box: np.ndarray  # [4] xyxy, px of the picture
    kind: str  # of ERROR_COLOURS
    text: str = ""


def draw_errors(image: np.ndarray | Tensor, marks: Sequence[Mark], title: str) -> Image.Image:
    """A picture with right boxes thin, false detections thick, missed boxes dashed, and a legend with their numbers.

    Args:
        image: uint8 [H, W, 3], or a tensor [3, H, W].
        marks: drawn in the order of ERROR_COLOURS, so that errors are on top.
        title: first line of the legend.
    """
    picture = _enlarged(_as_picture(image))
    scale, short = max(picture.size) / max(_size(image)), min(picture.size)
    canvas, font = ImageDraw.Draw(picture), _font(short)
    line = max(2, round(short / 200))
    for kind, colour in ERROR_COLOURS.items():
        for mark in (m for m in marks if m.kind == kind):
            box = (np.asarray(mark.box) * scale).tolist()
            if kind == "true":
                canvas.rectangle(box, outline=colour, width=max(1, line // 2))
            elif kind == "missed":
                _dashed(canvas, box, colour, line)
                _label(canvas, picture.size, box, mark.text, colour, font)
            else:
                _draw_one(canvas, picture.size, box, mark.text, colour, line, font)
    counts = {kind: sum(m.kind == kind for m in marks) for kind in ERROR_COLOURS}
    return _with_legend(picture, title, {k: n for k, n in counts.items() if n})


def _dashed(canvas: ImageDraw.ImageDraw, box: list[float], colour: str, line: int) -> None:
    """A dashed rectangle; the dashes are drawn on a black line, so that they are visible on any background."""
    x1, y1, x2, y2 = box
    dash = 4 * line
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x1, y2), (x2, y2)), ((x1, y1), (x1, y2))):
        canvas.line([start, end], "black", line)
        length = max(end[0] - start[0], end[1] - start[1])
        for at in np.arange(0, length, 2 * dash):
            a, b = at / length, min(1.0, (at + dash) / length)
            points = [tuple(s + (e - s) * share for s, e in zip(start, end, strict=True)) for share in (a, b)]
            canvas.line(points, colour, line)


def _with_legend(picture: Image.Image, title: str, counts: dict[str, int]) -> Image.Image:
    """The picture with a legend below it, wrapped at its width."""
    font = _font(max(min(picture.size), SHORTEST_SIDE))
    height = round(font.size * 1.5)
    draw = ImageDraw.Draw(picture)
    places, x, row = [], 4.0, 1
    for kind, count in counts.items():
        text = f"{count} {'right' if kind == 'true' else kind}"
        width = draw.textlength(text, font=font) + height + 10
        if x > 4 and x + width > picture.width:
            x, row = 4.0, row + 1
        places.append((x, row, kind, text))
        x += width
    sheet = Image.new("RGB", (picture.width, picture.height + height * (row + 1) + 4), "white")
    sheet.paste(picture, (0, 0))
    canvas = ImageDraw.Draw(sheet)
    while len(title) > 8 and draw.textlength(title, font=font) > picture.width - 8:
        title = f"..{title[3:]}"
    canvas.text((4, picture.height + 2), title, "black", font=font)
    for x, row, kind, text in places:
        y = picture.height + height * row + 2
        swatch = [x, y + 3, x + height - 6, y + height - 5]
        if kind == "missed":
            _dashed(canvas, swatch, ERROR_COLOURS[kind], 2)
        else:
            canvas.rectangle(swatch, outline=ERROR_COLOURS[kind], width=1 if kind == "true" else 4)
        canvas.text((x + height, y), text, "black", font=font)
    return sheet


def _font(short: float) -> ImageFont.FreeTypeFont:
    return default_font(min(max(short * TEXT_SHARE, SMALLEST_FONT), LARGEST_FONT))


def _draw_one(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: list[float],
    text: str,
    colour: str,
    line: int,
    font: ImageFont.FreeTypeFont,
) -> None:
    x1, y1, x2, y2 = box
    canvas.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=colour, width=line)
    _label(canvas, size, box, text, colour, font)


def _label(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: list[float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write a box's text above it, or inside it at the picture's upper border."""
    x1, y1 = box[:2]
    text, font = legible(text, font.size)
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font, anchor="lt")
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0.0, x1), max(0.0, size[0] - width))
    y = y1 - height if y1 >= height else min(y1, size[1] - height)
    canvas.rectangle([x, y, x + width, y + height], fill=colour)
    canvas.text((x + 2, y + 2), text, fill=_ink(colour), font=font, anchor="lt")


def _ink(colour: str) -> str:
    """Black or white, whichever is legible on `colour` (by luma)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"


def _as_picture(image: np.ndarray | Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    return Image.fromarray(np.ascontiguousarray(array))


def _size(image: np.ndarray | Tensor) -> tuple[int, int]:
    """(height, width)."""
    return tuple(image.shape[1:3] if isinstance(image, Tensor) else image.shape[:2])


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = min(-(-SHORTEST_SIDE // min(picture.size)), LONGEST_SIDE // max(picture.size))
    if factor <= 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _caption(picture: Image.Image) -> int:
    return max(18, min(picture.size) // 20)


def _in_rows(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures beside and below each other on white."""
    columns = min(columns, max(1, len(pictures)))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    width = max((sum(p.width + GAP for p in row) for row in rows), default=1)
    sheet = Image.new("RGB", (width, max(1, sum(max(p.height for p in row) + GAP for row in rows))), "white")
    y = 0
    for row in rows:
        x = 0
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + GAP
        y += max(p.height for p in row) + GAP
    return sheet
