"""status.json: what a run is and how far it got, readable while it lives and after it died."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.utilities import rank_zero_only

from detlab.files import overwrite, read_json, write_json
from detlab.runs.first_process import first_process
from detlab.training.processes import WATCH

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

    A state "running" whose time of update is long past means that the process died without a word (kill -9, power).

    Args:
        run_dir: the run's folder.
        stage: the part of the run that is going on, such as "2-detector"; its end is not the run's.
        every_s: seconds between updates.
    """

    def __init__(self, run_dir: str, stage: str | None = None, every_s: float = 30.0) -> None:
        self.path, self.stage = Path(run_dir) / "status.json", stage
        self.every_s = every_s
        self.facts: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._written = 0.0
        self._rank = 0

    def note(self, **facts: Any) -> None:
        """Facts that only the run knows, such as its config's hash."""
        self._notes |= facts
        if first_process():
            WATCH.on_death = self._bereaved  # already now: a rank may die before all have met

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Note the facts that do not change."""
        if self.facts:
            return
        self._rank = trainer.global_rank
        self.facts = {
            "state": "running",
            "stage": self.stage,
            "reason": None,
            "started": _now(),
            **self._notes,
            "command": [sys.executable, *sys.argv],
            "python": platform.python_version(),
            "packages": _versions(),
            "git": _git(),
            "host": platform.node(),
            "process": os.getpid(),
            "device": trainer.strategy.root_device.type,
            "processes": trainer.world_size,
            "monitor": module.monitor,
        }
        if trainer.is_global_zero:
            for file in self.path.parent.glob("status-rank*.json"):
                file.unlink(missing_ok=True)
        self._write(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note progress now and then."""
        if time.monotonic() - self._written > self.every_s:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note progress."""
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note progress."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def finish(self, state: str, reason: str | None = None, **facts: Any) -> None:
        """Note how the run ended; called by `detlab train`. A stage that finished leaves the run running.

        The first reason to fail stays: what follows is its consequence.
        """
        if self.facts.get("state") == "failed":
            return
        if self.stage is not None and state == "finished":
            state = "running"
        self.facts = self._notes | self.facts | {"state": state, "reason": reason, "ended": _now(), **facts}
        if self._rank == 0:
            self._put(self.path)
        elif state == "failed":  # for the first process to quote
            self._put(self.path.with_name(f"status-rank{self._rank}.json"))

    def _bereaved(self, reason: str) -> None:
        """Another rank is dead; say so with its own last words, if it left any."""
        time.sleep(0.2)  # it may be writing them
        for file in sorted(self.path.parent.glob("status-rank*.json")):
            with suppress(OSError, ValueError):
                reason += f"; {file.stem.removeprefix('status-')}: {(read_json(file) or {}).get('reason')}"
        self.finish("failed", reason)

    @rank_zero_only
    def _write(self, trainer: L.Trainer) -> None:
        self.facts |= {"epoch": trainer.current_epoch, "step": trainer.global_step, "updated": _now()}
        self._written = time.monotonic()
        self._put(self.path)

    def _put(self, path: Path) -> None:
        """Write the facts; on a full disk in the place of the old ones, and if that fails, to the terminal."""
        try:
            write_json(path, self.facts)
        except OSError as error:
            try:
                overwrite(path, json.dumps(self.facts, default=str).encode())
            except OSError:
                print(f"detlab: {path} cannot be written ({error}); it would say: {self.facts}", file=sys.stderr)


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
