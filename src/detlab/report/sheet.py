"""Contact sheet: detections of each row on the same test images, small enough to be embedded in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from detlab.report.rows import Row

WIDTH = 520  # px; width of a picture
TALLEST = 640  # px; taller sheets are cut at the bottom, so that all rows show the same first images


def picture_of(row: Row) -> tuple[str, int] | None:
    """(JPEG as data URI, seed) of a row's first seed with a picture of its test; None if there is none."""
    for seed, run in sorted(row.done.items()):
        found = sorted(path for path in (run.folder / "pictures").glob("test-*.png") if path.is_file())
        if found:
            return as_data_uri(found[-1]), seed
    return None


def as_data_uri(path: Path) -> str:
    """Scale a picture down, cut it, and encode it as a data URI."""
    with Image.open(path) as image:
        scale = min(1.0, WIDTH / image.width)
        small = image.convert("RGB").resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    small = small.crop((0, 0, small.width, min(small.height, TALLEST)))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
