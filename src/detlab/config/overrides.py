"""Overrides as text: their keys, short."""

from __future__ import annotations

import re
from collections.abc import Sequence


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """`model/neck` as `neck`, where no two keys would share the name."""
    last = {key: re.split(r"[./@]", key)[-1] for key in keys}
    return {key: last[key] if list(last.values()).count(last[key]) == 1 else key for key in keys}
