"""The sub-commands, read from their files without importing them, since torch takes seconds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple, TypeGuard

FOLDER = Path(__file__).parent


class Command(NamedTuple):
    """Name, summary and usage line of one file in commands/."""

    name: str
    summary: str  # the first line of its docstring
    usage: str  # its USAGE


def commands() -> dict[str, Command]:
    """Every sub-command by name: the files that define USAGE."""
    found = {}
    for file in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        usage = next((ast.literal_eval(n.value) for n in tree.body if _is_usage(n)), None)
        if usage is not None:
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[file.stem] = Command(file.stem, first.partition(": ")[2], usage)
    return found


def _is_usage(node: ast.stmt) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "USAGE"
