"""Contact sheet: detections of each row on the same test images, small enough to be embedded in the page."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from detlab.report.rows import Row
from detlab.system.reading import ReadError, open_regular

WIDTH = 520  # px; width of a picture
MOST_PIXELS = 50_000_000  # of a run's sheet
TALLEST = 640  # px; taller sheets are cut at the bottom, so that all rows show the same first images


def picture_of(row: Row) -> tuple[str, int] | None:
    """(JPEG as data URI, seed) of a row's first seed with a picture of its test; None if there is none."""
    for seed, run in sorted(row.done.items()):
        found = sorted(path for path in (run.folder / "pictures").glob("test-*.png") if path.is_file())
        if found and (picture := as_data_uri(found[-1])) is not None:
            return picture, seed
    return None


def as_data_uri(path: Path) -> str | None:
    """Scale a picture down, cut it, and encode it as a data URI; None if it is damaged or larger than any sheet."""
    try:
        with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            scale = min(1.0, WIDTH / image.width)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            small = image.convert("RGB").resize(size)
    except (OSError, ReadError, SyntaxError, ValueError, Image.DecompressionBombError, struct.error, zlib.error):
        return None
    small = small.crop((0, 0, small.width, min(small.height, TALLEST)))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
