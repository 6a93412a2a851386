"""Short names of override keys."""

from __future__ import annotations

import re
from collections.abc import Sequence


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """{key: short name}, such as `neck` for `model/neck`; a key stays whole if another has the same short name."""
    last = {key: re.split(r"[./@]", key)[-1] for key in keys}
    return {key: last[key] if list(last.values()).count(last[key]) == 1 else key for key in keys}
