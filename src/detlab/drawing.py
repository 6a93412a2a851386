"""Boxes on pictures: colour-blind-safe, legible at any size, ground truth beside predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Okabe and Ito's palette without black: told apart with every common colour vision
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
SHORTEST_SIDE = 320  # px; smaller pictures are enlarged before drawing
TEXT_SHARE = 1 / 32  # font size as a share of the shorter side
SMALLEST_FONT, LARGEST_FONT = 11, 40  # px
GAP = 6  # px between pictures of a sheet


class Boxes(NamedTuple):
    """What is drawn on one picture."""

    boxes: np.ndarray  # [n, 4] xyxy, px of the picture
    labels: np.ndarray  # [n]
    scores: np.ndarray | None = None  # [n]; None for ground truth


def draw_boxes(image: np.ndarray | Tensor, boxes: Boxes, class_names: Sequence[str]) -> Image.Image:
    """A picture with its boxes, class names and scores; small pictures come out enlarged.

    Args:
        image: uint8 [H, W, 3], or a tensor [3, H, W].
        boxes: drawn in order of rising score, so that the best lies on top.
    """
    picture = _enlarged(_as_picture(image))
    scale = picture.width / _width(image)
    canvas = ImageDraw.Draw(picture)
    short = min(picture.size)
    font = ImageFont.load_default(size=min(max(short * TEXT_SHARE, SMALLEST_FONT), LARGEST_FONT))
    line = max(2, round(short / 200))
    order = range(len(boxes.labels)) if boxes.scores is None else np.argsort(boxes.scores)
    for i in order:
        colour = PALETTE[int(boxes.labels[i]) % len(PALETTE)]
        text = str(class_names[int(boxes.labels[i])])
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
    """One picture of all images: ground truth on the left of each pair, predictions on the right."""
    pairs = []
    for image, truth, predicted in zip(images, truths, predictions, strict=True):
        left, right = draw_boxes(image, truth, class_names), draw_boxes(image, predicted, class_names)
        pair = Image.new("RGB", (left.width + right.width + GAP // 2, left.height + _caption(left)), "white")
        for x, side, title in ((0, left, "ground truth"), (left.width + GAP // 2, right, "predicted")):
            ImageDraw.Draw(pair).text((x + 4, 2), title, "black", ImageFont.load_default(size=_caption(left) - 6))
            pair.paste(side, (x, _caption(left)))
        pairs.append(pair)
    columns = min(pairs_per_row, max(1, len(pairs)))
    rows = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    width = max((sum(p.width + GAP for p in row) for row in rows), default=1)
    sheet = Image.new("RGB", (width, max(1, sum(max(p.height for p in row) + GAP for row in rows))), "white")
    y = 0
    for row in rows:
        x = 0
        for pair in row:
            sheet.paste(pair, (x, y))
            x += pair.width + GAP
        y += max(p.height for p in row) + GAP
    return sheet


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
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0.0, x1), max(0.0, size[0] - width))
    y = y1 - height if y1 >= height else min(y1, size[1] - height)  # above the box, or inside at the border
    canvas.rectangle([x, y, x + width, y + height], fill=colour)
    canvas.text((x + 2 - left, y + 2 - top), text, fill=_ink(colour), font=font)


def _ink(colour: str) -> str:
    """Black or white, whichever stands out (relative luminance)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"


def _as_picture(image: np.ndarray | Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    return Image.fromarray(np.ascontiguousarray(array))


def _width(image: np.ndarray | Tensor) -> int:
    return image.shape[2] if isinstance(image, Tensor) else image.shape[1]


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = -(-SHORTEST_SIDE // min(picture.size))
    if factor <= 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _caption(picture: Image.Image) -> int:
    return max(18, min(picture.size) // 20)
