"""detlab train: compose a detector, train it and test it.
Lightning starts the other ranks by running this module again: `python -m detlab.commands.train KEY=VALUE ...`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from detlab.system.parent import die_with_first_rank

    die_with_first_rank()  # called before the imports below, which take seconds on a busy machine

import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import hydra

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir, config_hash
from detlab.errors import ConfigError
from detlab.sweeps import end_with_parent
from detlab.system.text import complain

USAGE = "detlab train model=retinanet data=shapes"
CHECKED = "DETLAB_CHECKED_CONFIG"  # environment variable: hash of the config that `detlab rerun` has checked


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
@on_plain_config("train")
def main(config: dict[str, Any]) -> float | None:
    """Train; a sweeper receives the returned score. A run stopped by a signal exits with status 128 + signal."""
    # imported late: --help and the process that starts a sweep's jobs do not need torch
    from detlab.training.fit import train
    from detlab.training.signals import Stopped

    if os.environ.get(CHECKED) not in (None, config_hash(config)):
        raise ConfigError("The overrides do not compose the config that was checked; the run is not started.")
    try:
        return train(config)
    except Stopped as stop:
        complain(f"{stop}; resume=true goes on in {config['paths']['run_dir']}")
        sys.exit(128 + stop.signal)


def shows_sweep(arguments: Sequence[str]) -> bool:
    """Whether the command is `--cfg job` of a sweep; Hydra would show one config without the swept keys."""
    job = any(pair == ("--cfg", "job") for pair in itertools.pairwise(arguments)) or "--cfg=job" in arguments
    sweeps = any(a in ("-m", "--multirun") or a.startswith("ablation=") for a in arguments)
    return job and sweeps and not any(a in ("-p", "--package", "--resolve") for a in arguments)


def show_sweep(arguments: Sequence[str]) -> int:
    """Show the preview of `detlab ablate` instead of one config."""
    from detlab.commands.ablate import main as ablate

    words = [a for a in arguments if a not in ("-m", "--multirun", "--cfg", "job", "--cfg=job")]
    return ablate([*words, "preview=true"])


if __name__ == "__main__":
    end_with_parent()
    if shows_sweep(sys.argv[1:]):
        sys.exit(show_sweep(sys.argv[1:]))
    run_app(main, "train")
