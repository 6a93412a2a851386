"""A data set as one self-contained HTML page: tables, and pictures that can be filtered; no network, no other files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from detlab.drawing.pictures import PALETTE, fitted
from detlab.system.text import shown

SIDE = 400  # px, longer side of a picture
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Table(NamedTuple):
    """A table of the page; cells that are numbers or empty are aligned to the right."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """One image of the page."""

    split: str
    file: str
    size: tuple[int, int]  # (height, width), original px
    uri: str  # see `thumbnail`
    boxes: Sequence[tuple[float, float, float, float, int, int, bool]]  # xyxy in original px, label, size class, crowd
    dirt: Sequence[str]  # the audit's findings of the image, in words


def data_page(
    title: str,
    facts: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    size_names: Sequence[str],
) -> str:
    """The whole page.

    Args:
        facts: lines below the title.
        class_names, size_names: names by label and by size class.
    """
    source = files("detlab.drawing")
    style, script = (source.joinpath(f"data_page.{kind}").read_text() for kind in ("css", "js"))
    content = {
        "classes": [shown(name) for name in class_names],
        "sizes": list(size_names),
        "palette": PALETTE,
        "pictures": [_as_json(picture) for picture in pictures],
    }
    head = "".join(f"<p>{_html(line)}</p>" for line in facts)
    body = "".join(_table(table) for table in tables if table.rows)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{_html(title)}</title><style>{style}</style></head>"
        f"<body><header><h1>{_html(title)}</h1>{head}</header><main>{body}"
        '<section><h2>Pictures</h2><form id="filters"></form><p id="shown"></p><div id="pictures"></div></section>'
        f'</main><script type="application/json" id="content">{_in_script(content)}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def thumbnail(image: np.ndarray | Tensor) -> str:
    """An image, uint8 [H, W, 3] or a tensor [3, H, W], as a small JPEG in a data URI."""
    height, width = image.shape[1:] if isinstance(image, Tensor) else image.shape[:2]
    out = io.BytesIO()
    fitted(image, min(SIDE, max(height, width))).save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _as_json(picture: Picture) -> dict[str, Any]:
    return {
        "split": picture.split,
        "file": shown(picture.file),
        "size": picture.size,
        "uri": picture.uri,
        "boxes": [[*(round(v, 2) for v in box[:4]), *box[4:]] for box in picture.boxes],
        "dirt": list(picture.dirt),
    }


def _table(table: Table) -> str:
    first = [_kind(cell) for cell in table.rows[0]]
    heads = "".join(f"<th{kind}>{_html(head)}</th>" for head, kind in zip(table.heads, first, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{_kind(cell)}>{_html(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<details open><summary>{_html(table.title)}</summary><div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _kind(cell: str) -> str:
    return "" if not cell or cell[0].isdigit() else ' class="word"'


def _html(text: str) -> str:
    return escape(shown(text))


def _in_script(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
