"""The `detlab` command: each sub-command is a file of commands/, run as a module so that its argv can be run again."""

from __future__ import annotations

import os
import sys

from detlab.commands.listing import commands
from detlab.system.text import complain, write_lines

HELP = """usage: detlab COMMAND [KEY=VALUE ...]

{commands}

Groups swap with a slash (model/neck=fpn), single values with a dot (optim.lr=0.01).
detlab COMMAND --help lists the groups and keys of a command; --cfg job prints the composed config;
-m sweeps over comma-separated values; --config-dir FOLDER adds your own options.
"""


def main() -> None:
    """Replace this process by the sub-command that its arguments name."""
    arguments = sys.argv[1:]
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {c.name:10} {c.summary}\n  {'':10} {c.usage}" for c in known.values())
        write_lines([HELP.format(commands=lines)])
        return
    command = arguments[0]
    if command in ("-V", "--version"):
        from importlib.metadata import version

        print(f"detlab {version('detlab')}")
        return
    if command not in known:
        import difflib

        near = difflib.get_close_matches(command, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        complain(f"there is no command {command}{hint}. See detlab --help.")
        sys.exit(2)
    # Run as a module, so that sys.argv can be executed again: Lightning does this for the other DDP ranks.
    os.execv(sys.executable, [sys.executable, "-m", f"detlab.commands.{command}", *arguments[1:]])


if __name__ == "__main__":
    main()
