"""detlab rerun: the command of a run folder again, in a new folder, and whether it came to the same."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from detlab.config.compose import compose_config
from detlab.errors import ConfigError
from detlab.files import read_json
from detlab.runs.checkpoints import check_targets
from detlab.runs.folder import make_free
from detlab.runs.resuming import read_status

USAGE = "detlab rerun outputs/..."

USAGE = "usage: detlab rerun RUN [out=FOLDER] [trust=[PREFIX,...]]"
COMPARED = ("config_hash", "data_fingerprint", "git", "packages", "python", "device", "processes")


def overrides_of(run: Path, trust: tuple[str, ...] = ()) -> list[str]:
    """The overrides a run was started with, once it is clear that they import nothing from outside trusted packages.

    Raises:
        ConfigError: no run folder, or files in it that cannot be trusted.
    """
    try:
        words = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
        saved = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{run} is not a run folder with .hydra/overrides.yaml and config.yaml ({error}).") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{run}/.hydra/overrides.yaml is not a list of overrides.")
    strange = [word for word in words if word.startswith("-") or word.lstrip("+~").startswith("hydra")]
    if strange:
        raise ConfigError(f"{run}/.hydra/overrides.yaml holds {strange[0]!r}, which no override of a run is.")
    check_targets(saved, trust)
    own = [word for word in words if not word.startswith(("resume=", "trust="))]  # whom to trust is the user's to say
    check_targets(OmegaConf.to_container(compose_config("train", own), resolve=False), trust)
    return [*own, f"trust=[{','.join(trust)}]"] if trust else own


def rerun(run: Path, out: Path, trust: tuple[str, ...] = ()) -> bool:
    """Repeat a run in `out` and print what is the same; whether all metrics are.

    Raises:
        ConfigError: see `overrides_of`; or the repeated run failed.
    """
    words = overrides_of(run, trust)
    done = subprocess.run([sys.executable, "-m", "detlab.commands.train", *words, f"hydra.run.dir='{out}'"])
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
    console = Console()
    if table.row_count:
        console.print(table)
    same = f"{len(then) - len(set(different) & set(then))} of {len(then)} metrics are the same to the bit"
    console.print(f"rerun       {same}; {out}", soft_wrap=True, highlight=False)
    return bool(then) and not different


def main(arguments: list[str]) -> int:
    """The command; exit status 1 where a metric differs."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    run = Path(arguments[0]).expanduser().resolve()
    options = dict(word.split("=", 1) for word in arguments[1:] if "=" in word)
    unknown = set(options) - {"out", "trust"}
    if unknown or len(options) != len(arguments) - 1:
        print(f"detlab: rerun takes out=FOLDER and trust=[...] only. {USAGE}", file=sys.stderr)
        return 2
    again = run.with_name(f"{run.name}-again-{datetime.now():%H-%M-%S}")
    out = Path(options["out"]).resolve() if options.get("out") else make_free(again)
    trust = tuple(word for word in options.get("trust", "").strip("[]").split(",") if word)
    try:
        return 0 if rerun(run, out, trust) else 1
    except ConfigError as error:
        print(f"detlab: {error}", file=sys.stderr)
        return 2


def _metrics(run: Path) -> dict[str, Any]:
    return (read_json(run / "result.json") or {}).get("metrics") or {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
