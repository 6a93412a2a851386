"""Parsing of numbers and flags in annotation files, which write them in many ways."""

from __future__ import annotations

import math
import re

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
TRUE, FALSE = {"true", "yes", "y", "t", "on"}, {"false", "no", "n", "f", "off", "", "none", "null", "unspecified"}


def number(value: object) -> float | None:
    """A finite number: 4, 4.0, "4", " 4e0 "; None for everything else, including booleans."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 400 or not NUMBER.fullmatch(text):
            return None
        value = text
    elif not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer beyond a float's range
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """An integer of 64 bits: 1, 1.0, "1", "1.0"; None for everything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,19}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else None
    found = number(value)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**53 else None


def flag(value: object) -> bool | None:
    """True for 1, 1.0, "1", true, "yes"; False for 0, "0", "no", "" and null; None for anything else.

    Open Images writes -1 for a flag that nobody has judged.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value.strip().lower() in TRUE
    found = number(value)
    return None if found is None or found < 0 else found != 0


def words(value: object, most: int = 60) -> str:
    """A value of a file as text for a message, at most `most` characters and dots."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested deeply, or an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."
