"""detlab train: compose a detector, train it and test it.
Lightning runs this module again for the other ranks: `python -m detlab.commands.train KEY=VALUE ...`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from detlab.commands.app import run_app
from detlab.config.compose import config_dir, plain_config
from detlab.sweeps import end_with_parent

USAGE = "detlab train model=retinanet data=shapes"


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
def main(config: DictConfig) -> float | None:
    """Train; the value is what a sweeper sees. A run that a signal stopped ends with exit status 128 + signal."""
    # torch: neither --help nor the process that starts a sweep's jobs needs it
    from detlab.training.fit import train
    from detlab.training.signals import Stopped

    plain = plain_config(config)
    if plain["resume"] and not _folder_is_given():
        _go_on(plain)
    try:
        return train(plain)
    except Stopped as stop:
        print(f"detlab: {stop}; resume=true goes on in {plain['paths']['run_dir']}", file=sys.stderr)
        sys.exit(128 + stop.signal)


def _folder_is_given() -> bool:
    """Whether the command names the run's folder; jobs of a sweep have theirs from the sweep."""
    settings = HydraConfig.get()
    named = any(override.startswith("hydra.run.dir=") for override in settings.overrides.hydra)
    return named or settings.mode == RunMode.MULTIRUN


def _go_on(config: dict[str, Any]) -> None:
    """Become the same command in the folder of the run to go on with; Hydra has made a new one for this process."""
    from detlab.runs.resuming import find_run

    own = Path(HydraConfig.get().runtime.output_dir)
    folder = find_run(config, own.parents[1], own)
    shutil.rmtree(own)  # holds nothing but what Hydra wrote a moment ago
    sys.stdout.flush()
    os.execv(
        sys.executable, [sys.executable, "-m", "detlab.commands.train", *sys.argv[1:], f"hydra.run.dir='{folder}'"]
    )


if __name__ == "__main__":
    end_with_parent()
    run_app(main, "train")
