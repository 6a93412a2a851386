"""The `detlab` command: each sub-command is a module, run so that its argv can be run again."""

from __future__ import annotations

import os
import sys

COMMANDS = {
    "train": "compose a detector, train it, test it        detlab train model=retinanet data=shapes",
    "evaluate": "metrics of a run or checkpoint              detlab evaluate run=outputs/... ckpt=best",
    "predict": "pictures and json for your images           detlab predict run=outputs/... source=images/",
    "proposals": "boxes of every image, for data.proposals   detlab proposals data=... method=selective_search",
    "benchmark": "speed and memory beside torchvision        detlab benchmark target=step",
    "anchors": "do a model's anchors cover your boxes?    detlab anchors model=retinanet data=...",
    "check": "everything once, before a long run         detlab check model=retinanet data=...",
    "report": "which differences are real              detlab report outputs/sweeps/NAME",
    "compare": "two runs side by side                    detlab compare RUN_A RUN_B",
    "export": "one graph of a run, NMS included        detlab export run=outputs/... format=onnx",
    "rerun": "a run again, and what differs              detlab rerun outputs/...",
    "rules": "the table of combinations that are refused",
}

USAGE = """usage: detlab COMMAND [KEY=VALUE ...]

{commands}

Groups swap with a slash (model/neck=fpn), single values with a dot (optim.lr=0.01).
detlab COMMAND --help lists the groups and keys of a command; --cfg job prints the composed config;
-m sweeps over comma-separated values; --config-dir FOLDER adds your own options.
"""


def main() -> None:
    """Run a sub-command in this process's place."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:9} {text}" for name, text in COMMANDS.items())
        print(USAGE.format(commands=lines))
        return
    command = arguments[0]
    if command in ("-V", "--version"):
        from importlib.metadata import version

        print(f"detlab {version('detlab')}")
        return
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"detlab: there is no command {command}{hint}. See detlab --help.", file=sys.stderr)
        sys.exit(2)
    if command == "rules":
        from detlab.config.rules import as_markdown

        print(as_markdown(), end="")
        return
    # A module of its own keeps sys.argv re-executable: Lightning runs it again for the other DDP ranks.
    os.execv(sys.executable, [sys.executable, "-m", f"detlab.commands.{command}", *arguments[1:]])


if __name__ == "__main__":
    main()
