"""The `detlab` command: each sub-command is a file of commands/, run as a module so that its argv can be run again."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import NamedTuple, TypeGuard

FOLDER = Path(__file__).parent / "commands"
HELP = """usage: detlab COMMAND [KEY=VALUE ...]

{commands}

Groups swap with a slash (model/neck=fpn), single values with a dot (optim.lr=0.01).
detlab COMMAND --help lists the groups and keys of a command; --cfg job prints the composed config;
-m sweeps over comma-separated values; --config-dir FOLDER adds your own options.
"""


class Command(NamedTuple):
    """Name, summary and usage line of one file in commands/."""

    name: str
    summary: str  # the first line of its docstring
    usage: str  # its USAGE


def commands() -> dict[str, Command]:
    """Every sub-command by name: the files with a USAGE, parsed and not imported, since torch takes seconds."""
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


def main() -> None:
    """Replace this process by the sub-command that its arguments name."""
    arguments = sys.argv[1:]
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {c.name:10} {c.summary}\n  {'':10} {c.usage}" for c in known.values())
        print(HELP.format(commands=lines))
        return
    command = arguments[0]
    if command in ("-V", "--version"):
        from importlib.metadata import version

        print(f"detlab {version('detlab')}")
        return
    if command not in known:
        import difflib

        from detlab.system.printing import complain

        near = difflib.get_close_matches(command, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        complain(f"there is no command {command}{hint}. See detlab --help.")
        sys.exit(2)
    # Run as a module, so that sys.argv can be executed again: Lightning does this for the other DDP ranks.
    os.execv(sys.executable, [sys.executable, "-m", f"detlab.commands.{command}", *arguments[1:]])


if __name__ == "__main__":
    main()
