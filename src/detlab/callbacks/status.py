"""status.json: what a run is and how far it got, readable while it lives and after it died."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.utilities import rank_zero_only

from detlab.files import write_json

PACKAGES = (
    "detlab",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
)


class RunStatus(L.Callback):
    """status.json: state (running, finished, stopped, failed), reason, progress, versions, git commit, machine.

    Args:
        run_dir: the run's folder.
        stage: the part of the run that is going on, such as "2-detector"; its end is not the run's.
    """

    def __init__(self, run_dir: str, stage: str | None = None) -> None:
        self.path, self.stage = Path(run_dir) / "status.json", stage
        self.facts: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Note the facts that do not change."""
        if self.facts:
            return
        self.facts = {
            "state": "running",
            "stage": self.stage,
            "reason": None,
            "started": _now(),
            "command": [sys.executable, *sys.argv],
            "python": platform.python_version(),
            "packages": _versions(),
            "git": _git(),
            "host": platform.node(),
            "device": trainer.strategy.root_device.type,
            "processes": trainer.world_size,
            "monitor": module.monitor,
        }
        self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note progress."""
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note progress."""
        if not trainer.sanity_checking:
            self._write(trainer)

    @rank_zero_only
    def finish(self, state: str, reason: str | None = None) -> None:
        """Note how the run ended; called by `detlab train`. A stage that finished leaves the run running."""
        if self.stage is not None and state == "finished":
            state = "running"
        self.facts |= {"state": state, "reason": reason, "ended": _now()}
        write_json(self.path, self.facts)

    @rank_zero_only
    def _write(self, trainer: L.Trainer) -> None:
        self.facts |= {"epoch": trainer.current_epoch, "step": trainer.global_step, "updated": _now()}
        write_json(self.path, self.facts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from, else of the folder the program was started in."""
    for folder in (Path(__file__).parent, Path.cwd()):
        try:
            commit = _run("git", "-C", str(folder), "rev-parse", "HEAD")
            return {"commit": commit, "dirty": bool(_run("git", "-C", str(folder), "status", "--porcelain", "-uno"))}
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
