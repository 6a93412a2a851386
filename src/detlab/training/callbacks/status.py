"""Write status.json: facts, progress and end of a run, readable while it runs and after it died."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.utilities import rank_zero_only

from detlab.runs.folder import rank
from detlab.system.files import overwrite, read_json, write_json
from detlab.system.parent import first_rank
from detlab.system.text import complain
from detlab.training.processes import FAREWELL_S, WATCH, process_state

ERRORS_S = 1.0  # wait for the error messages of other ranks
WAITED_FOR_ANOTHER = re.compile("(?i)timed ?out|connection|gloo|nccl|process group|socket|recv")
PACKAGES = (
    "detlab",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
)
PACKAGE = Path(__file__).parents[2]
CODE = ("src", "conf", "pyproject.toml")  # of this package's checkout


class RunStatus(L.Callback):
    """status.json: state (running, finished, stopped, failed), reason, progress, versions, git commit, machine.

    A state "running" that was last updated long ago means that the process was killed (kill -9, power failure).

    Args:
        run_dir: the run's folder.
        stage: the stage that runs, such as "2-detector"; when it finishes, the run itself does not.
        every_s: seconds between updates.
    """

    def __init__(self, run_dir: str, stage: str | None = None, every_s: float = 30.0) -> None:
        self.path, self.stage = Path(run_dir) / "status.json", stage
        self.every_s = every_s
        self.facts: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._written = 0.0
        self._rank, self._processes = rank(), 1
        self._ending = threading.RLock()  # main thread or watch thread: the first one's reason is kept

    def note(self, **facts: Any) -> None:
        """Add facts to status.json that this callback cannot know, such as the config's hash."""
        self._notes |= facts
        WATCH.on_death = self._on_rank_death  # set early: a rank may die before the process group exists

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Write the facts that do not change."""
        if self.facts:
            return
        self._rank, self._processes = trainer.global_rank, trainer.world_size
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
        self._write(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write progress every `every_s` seconds."""
        if time.monotonic() - self._written > self.every_s:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write progress."""
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write progress."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def finish(self, state: str, reason: str | None = None, **facts: Any) -> None:
        """Write how the run ended; called by `detlab train`. A finished stage leaves the state "running".

        The first failure is kept, since later ones are its consequence; the errors of other ranks are added to it.
        """
        with self._ending:
            if self.facts.get("state") == "failed":
                return
            if self.stage is not None and state == "finished":
                state = "running"
            if state == "failed" and self._rank == 0:
                reason = "; ".join([*self._errors_of_ranks(str(reason)), str(reason)])
            self.facts = self._notes | self.facts | {"state": state, "reason": reason, "ended": _now(), **facts}
            if self._rank == 0:
                self._put(self.path)
            elif state == "failed":
                leave_words(self.path.parent, self._rank, str(reason))
                self._write_for_rank_0(str(reason))

    def _on_rank_death(self, reason: str) -> None:
        """Write that another rank is dead."""
        self.finish("failed", reason)

    def _errors_of_ranks(self, reason: str) -> list[str]:
        """Errors that other ranks wrote, one text per rank.

        If this rank failed while waiting for others, the ranks that wrote nothing are listed too.
        """
        waited = self._processes > 1 and WAITED_FOR_ANOTHER.search(reason) is not None
        end = time.monotonic() + ERRORS_S
        while len(words := words_of(self.path.parent)) < self._processes - 1 and time.monotonic() < end:
            time.sleep(0.05)
        silent = [f"no word from rank {number}" for number in range(1, self._processes) if number not in words]
        said = [f"rank {number}: {text}" for number, text in words.items() if text != reason]
        return said + (silent if waited else [])

    def _write_for_rank_0(self, reason: str) -> None:
        """Write status.json in place of rank 0 if that is dead, stopped or does not react."""

        def state() -> str:
            here = told.get("host") == platform.node()
            return process_state(int(told["process"])) if here and "process" in told else "said nothing"

        told = read_json(self.path)
        if not isinstance(told, dict) or (first_rank() is not None and state() == "still runs"):
            return  # rank 0 will notice and write it
        end = time.monotonic() + FAREWELL_S - 1 + 0.2 * self._rank
        while time.monotonic() < end:
            told = read_json(self.path)
            if not isinstance(told, dict) or told.get("state") != "running":
                return
            time.sleep(0.1)
        said = f"rank 0 (process {told.get('process')}) {state()}; rank {self._rank}: {reason}"
        write_json(self.path, told | {"state": "failed", "reason": said, "ended": _now()})

    @rank_zero_only
    def _write(self, trainer: L.Trainer) -> None:
        self.facts |= {"epoch": trainer.current_epoch, "step": trainer.global_step, "updated": _now()}
        self._written = time.monotonic()
        self._put(self.path)

    def _put(self, path: Path) -> None:
        """Write the facts; on a full disk overwrite the old file in place, or print them if that fails too."""
        try:
            write_json(path, self.facts)
        except OSError as error:
            try:
                overwrite(path, json.dumps(self.facts, default=str).encode())
            except OSError:
                complain(f"{path} cannot be written ({error}); it would say: {self.facts}")


def leave_words(run_dir: Path, number: int, reason: str) -> None:
    """Write why this rank failed, for rank 0 to quote; an earlier text of this rank is kept."""
    file = run_dir / f"status-rank{number}.json"
    if not file.exists():
        with suppress(OSError):  # a full disk must not hide the error itself
            write_json(file, {"state": "failed", "reason": reason, "ended": _now()})


def words_of(run_dir: Path) -> dict[int, str]:
    """{rank: why it failed} of the ranks that wrote a reason."""
    found = {}
    for file in sorted(run_dir.glob("status-rank*.json")):
        told, number = read_json(file), file.stem.removeprefix("status-rank")
        if isinstance(told, dict) and number.isdigit():
            found[int(number)] = str(told.get("reason"))
    return found


def forget_words(run_dir: Path) -> None:
    """Remove the reasons that ranks wrote in an earlier attempt."""
    for file in run_dir.glob("status-rank*.json"):
        file.unlink(missing_ok=True)


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
    """Commit of the checkout that this package runs from, else of the current folder; None outside git.

    It is dirty if a tracked file has changed; in this package's own checkout, only its code and configs count.
    """
    for folder in (PACKAGE, Path.cwd()):
        try:
            commit = _run("git", "-C", str(folder), "rev-parse", "HEAD")
            top = _run("git", "-C", str(folder), "rev-parse", "--show-toplevel")
            paths = [f":/{name}" for name in CODE] if Path(top) == PACKAGE.parents[1] else []
            changed = _run("git", "-C", str(folder), "status", "--porcelain", "-uno", "--", *paths)
            return {"commit": commit, "dirty": bool(changed)}
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
