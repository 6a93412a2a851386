"""Progress on the terminal and in log files, and the time spent in each part of an epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from detlab.training.lightning_module import detection


def progress_bar() -> L.Callback:
    """A rich bar on a terminal; one line per evaluation elsewhere."""
    return EpochBar() if sys.stdout.isatty() else EpochLines()


class EpochBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1 as everywhere else in detlab."""

    def _get_train_description(self, current_epoch: int) -> str:
        most = self.trainer.max_epochs
        told = f"Epoch {current_epoch + 1}" + (f"/{most}" if most is not None and most > 0 else "")
        return f"{told:{len(self.validation_description)}}"  # constant width, else the bar flickers


class EpochLines(L.Callback):
    """One line per evaluation: epoch, step, training loss, monitored metric, seconds."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Print the line."""
        if trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        wanted = [key for key in ("train/loss", "val/loss", detection(module).monitor) if key in values]
        shown = "  ".join(f"{key} {float(values[key]):.3f}" for key in wanted)
        elapsed = time.monotonic() - self._start
        print(
            f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}  {shown}  {elapsed:.0f} s",
            flush=True,
        )


class EpochTimes(L.Callback):
    """Logs and prints the share of each epoch spent waiting for data, in steps, and in evaluation."""

    def __init__(self) -> None:
        self._times = dict.fromkeys(("loader", "step", "evaluation"), 0.0)
        self._mark = self._epoch = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Reset the times at the start of an epoch."""
        self._times = dict.fromkeys(self._times, 0.0)
        self._mark = self._epoch = time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last mark as waiting for data."""
        self._book("loader")

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last mark as training step."""
        self._book("step")

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Set the mark at the start of evaluation."""
        self._mark = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Count the time since the mark as evaluation."""
        self._book("evaluation")

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log and print the shares."""
        total = max(time.monotonic() - self._epoch, 1e-9)
        for name, seconds in self._times.items():
            module.log(f"time/{name}_share", seconds / total, rank_zero_only=True)
        module.log("time/epoch_s", total, rank_zero_only=True)
        if trainer.is_global_zero:
            shown = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in self._times.items())
            print(f"epoch {trainer.current_epoch + 1}  {total:.0f} s: {shown} (loader: waiting for data)", flush=True)

    def _book(self, name: str) -> None:
        now = time.monotonic()
        self._times[name] += now - self._mark
        self._mark = now
