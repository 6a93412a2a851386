"""Fonts for names in any script, as far as the machine has one for it."""

from __future__ import annotations

from functools import cache
from typing import cast

from PIL import ImageFont

LATIN = 0x180  # Pillow's own font has the characters below this one


def legible(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text and a font that has its characters: Pillow's, DejaVu Sans of matplotlib, or one of the machine's.

    Characters that no single font has beside the others become U+XXXX, so that names stay apart.

    Args:
        size: px.
    """
    if all(ord(c) < LATIN for c in text):
        return text, default_font(size)
    face = _face(frozenset(text))
    if face is not None:
        return text, ImageFont.truetype(face, size)
    known = _characters(_dejavu())
    shown = "".join(c if ord(c) in known else f"U+{ord(c):04X}" for c in text)
    return shown, ImageFont.truetype(_dejavu(), size)


def default_font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))  # every Pillow wheel contains FreeType


@cache
def _face(characters: frozenset[str]) -> str | None:
    """The file of a font with all these characters, upright sans serifs first; None if there is none."""
    from matplotlib.font_manager import fontManager

    wanted = {ord(c) for c in characters}
    if wanted <= _characters(_dejavu()):
        return _dejavu()
    faces = [f for f in fontManager.ttflist if f.style == "normal" and str(f.weight) in ("400", "regular", "normal")]
    faces.sort(key=lambda f: ("sans" not in f.name.lower(), f.name, f.fname))
    return next((f.fname for f in faces if wanted <= _characters(f.fname)), None)


@cache
def _dejavu() -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@cache
def _characters(face: str) -> frozenset[int]:
    """The code points of a font; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(face).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
