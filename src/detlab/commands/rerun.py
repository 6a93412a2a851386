"""detlab rerun: repeat the command of a run folder in a new folder, and compare the results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from detlab.commands.train import CHECKED
from detlab.commands.words import OWN, joined_flag, own_folder
from detlab.config.compose import config_hash
from detlab.config.repeated import read_overrides, repeated, run_dir_override
from detlab.errors import ConfigError
from detlab.runs.folder import make_free
from detlab.runs.resuming import read_status
from detlab.system.files import read_json
from detlab.system.printing import say, show
from detlab.system.text import complain, write_lines

USAGE = "detlab rerun outputs/..."

HELP = "usage: detlab rerun RUN [--config-dir=FOLDER] [out=FOLDER] [trust=[PACKAGE,...]]"
COMPARED = (
    "config_hash",
    "data_fingerprint",
    "weights_fingerprint",
    "git",
    "packages",
    "python",
    "device",
    "processes",
)


def rerun(run: Path, out: Path, trust: tuple[str, ...] = (), own: Path | None = None) -> bool:
    """Repeat a run in `out` and print the differences; returns whether all metrics are equal.

    The folder's overrides are untrusted: `repeated` checks them and drops some. The training process composes them
    again and refuses to start if the result is not the checked config.

    Args:
        run, out: the run's folder and the new one.
        trust: the user's own packages that the config may name.
        own: the user's folder of own options, as --config-dir of the run.

    Raises:
        ConfigError: an override is refused, or the repeated run failed.
    """
    again = repeated(read_overrides(run), out, trust, str(run / ".hydra" / "overrides.yaml"), own)
    for word in again.left_out:
        say(f"left out    {word}: where to write, and whom to trust, is not the folder's to say")
    options = [] if own is None else ["--config-dir", str(own)]
    words = [*options, *again.words, "hydra.mode=RUN", run_dir_override(out)]
    environment = os.environ | {CHECKED: config_hash(again.config)}
    done = subprocess.run([sys.executable, "-m", "detlab.commands.train", *words], env=environment)
    if done.returncode:
        raise ConfigError(f"The run repeated in {out} ended with exit status {done.returncode}.")
    old, new = read_status(run), read_status(out)
    table = Table("", "then", "now", title=f"{run} again")
    for key in COMPARED:
        if old.get(key) != new.get(key):
            table.add_row(key, str(old.get(key)), str(new.get(key)))
    then, now = _metrics(run), _metrics(out)
    different = [name for name in sorted(then | now) if then.get(name) != now.get(name)]
    for name in different:
        table.add_row(name, str(then.get(name)), str(now.get(name)))
    if table.row_count:
        show(table)
    same = f"{len(then) - len(set(different) & set(then))} of {len(then)} metrics are the same to the bit"
    say(f"rerun       {same}; {out}")
    return bool(then) and not different


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 1 if a metric differs."""
    if not arguments or {"-h", "--help"} & set(arguments):
        write_lines([HELP])
        return 0 if arguments else 2
    run = Path(arguments[0]).expanduser().resolve()
    words = joined_flag(arguments[1:])
    options = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = set(options) - {"out", "trust", OWN}
    if unknown or len(options) != len(words):
        complain(f"rerun takes {OWN}=FOLDER, out=FOLDER and trust=[...] only. {HELP}")
        return 2
    try:
        own = own_folder(options[OWN]) if OWN in options else None
    except ConfigError as error:
        complain(error)
        return 2
    if not (run / ".hydra").is_dir():  # before a folder is made beside it
        complain(f"{arguments[0]} is not a run folder with .hydra/overrides.yaml.")
        return 2
    name = re.sub(r"[^\w.-]", "_", run.name) + f"-again-{datetime.now():%H-%M-%S}"
    given = options.get("out")
    trust = tuple(word for word in options.get("trust", "").strip("[]").split(",") if word)
    try:
        out = Path(given).expanduser().resolve() if given else make_free(run.parent / name)
    except ConfigError as error:
        complain(error)
        return 2
    try:
        return 0 if rerun(run, out, trust, own) else 1
    except ConfigError as error:
        complain(error)
        if not given:
            with suppress(OSError):  # a folder with files of a started run is kept
                out.rmdir()
        return 2


def _metrics(run: Path) -> dict[str, Any]:
    result = read_json(run / "result.json")
    metrics = result.get("metrics") if isinstance(result, dict) else None
    return metrics if isinstance(metrics, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
