"""The name of a sweep's folder, also available in configs as the resolver `detlab.sweep_name`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser


def sweep_name(overrides: Sequence[str], params: Mapping[str, Any] | None = None) -> str:
    """Folder name of a sweep: its swept keys and a digest of the other overrides.

    The same command always gives the same folder. Seeds and levels are not part of the name, so a sweep that is
    extended by seeds or levels keeps its folder.

    Args:
        overrides: from the command line.
        params: {key: levels} swept by an ablation's file.
    """
    parser = OverridesParser.create()
    swept, identity, names = set(params or ()), set(), []
    for text in overrides:
        override = parser.parse_override(text)
        key = override.get_key_element().lstrip("+")
        if override.is_sweep_override():
            swept.add(key)
        elif key not in swept and key != "seed":
            identity.add(text)
        if key in ("ablation", "experiment"):
            names.append(str(override.get_value_element_as_str()))
    swept.discard("seed")
    words = [*sorted(names), *sorted(re.split(r"[./@]", key)[-1] for key in swept)]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(dict.fromkeys(words)))[:100] or "seeds"
    digest = hashlib.sha256(json.dumps([*sorted(identity), *sorted(swept)]).encode()).hexdigest()
    return f"{name}-{digest[:6]}"
