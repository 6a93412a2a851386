"""Small files written whole or not at all, and read without raising where they are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write a file whole or not at all; numbers of a list share a line, or everything does if compact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text((json.dumps(value, default=str) if compact else _laid_out(value)) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or it is no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with one entry of an object a line; lists of numbers or words stay on one line."""
    deeper = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{deeper}{json.dumps(str(k))}: {_laid_out(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return "[\n" + ",\n".join(deeper + _laid_out(v, deeper) for v in value) + "\n" + indent + "]"
    return json.dumps(value, default=str)
