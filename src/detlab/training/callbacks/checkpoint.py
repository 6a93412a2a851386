"""Save the best, the last and the previous checkpoint; a run resumed from one continues bit for bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from detlab.errors import ConfigError
from detlab.ranges import Count, OneOf, Positive
from detlab.runs.checkpoints import CHECKPOINT_KEY, LAST, PREVIOUS, read_content
from detlab.runs.seal import SEAL, seal_of
from detlab.system.files import remove_leftovers
from detlab.system.printing import say
from detlab.tensors.archive import save_tensors
from detlab.tensors.ranks import together
from detlab.training.callbacks.nonfinite import NonFiniteGuard
from detlab.training.processes import WATCH, Agreement
from detlab.training.signals import STOP, Stopped
from detlab.training.trainers import callbacks_of, log_interval

NOTHING, SAVE = 0, 1  # what a process asks for after a step; SAVE + n: stop because of signal n


AGREE_EVERY = 5  # steps between two looks at the signals of all processes, each of which waits for the slowest


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints atomically and keeps the last but one as previous.ckpt.

    Lightning writes to the system's temporary folder and moves the file, which is not atomic between disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file atomically, sealed: see `detlab.runs.seal`."""
        path = Path(path)
        if isinstance(checkpoint.get(CHECKPOINT_KEY), dict):
            checkpoint[CHECKPOINT_KEY][SEAL] = seal_of(checkpoint, CHECKPOINT_KEY)
        save_tensors(path, checkpoint, previous=path.with_name(PREVIOUS) if path.name == LAST else None)


class RunCheckpoint(ModelCheckpoint):
    """best.ckpt by the monitored metric; last.ckpt at every epoch's end and within epochs; previous.ckpt.

    Within an epoch last.ckpt is saved every so many steps or minutes, and when a signal asks the run to stop. A run
    could not resume from a step directly before an evaluation or between accumulated batches, so none is saved there.

    Args:
        dirpath: folder of the checkpoints.
        monitor, mode: metric that chooses best.ckpt, and whether larger ("max") or smaller ("min") is better.
        every_n_steps: optimiser steps between checkpoints within an epoch; null to disable.
        every_n_minutes: minutes between checkpoints within an epoch; null to disable.
    """

    def __init__(
        self,
        *,
        dirpath: str,
        monitor: str,
        mode: Annotated[str, OneOf(("min", "max"))] = "max",
        every_n_steps: Count | None = None,
        every_n_minutes: Positive | None = None,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"callbacks.checkpoint.{name}={value} must be positive, or null for none.")
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self._no_value = self.kth_value  # of the metric, before the first evaluation
        self._agreement = Agreement()
        self._step = self._saved_step = 0
        self._saved_at = time.monotonic()
        self._row: dict[str, float] | None = None  # metrics row of the checkpoint's step, if not logged yet

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Install the signal handlers, and remove partial files of a process that died while writing."""
        super().setup(trainer, module, stage)
        STOP.install()
        STOP.deferred = True
        if trainer.is_global_zero:
            remove_leftovers(self.folder)

    def on_sanity_check_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Install the signal handlers again, since Lightning has just replaced them by its own."""
        STOP.install()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the metrics row that was not written before the stop."""
        super().on_train_start(trainer, module)
        STOP.install()
        self._step = self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        row, self._row = self._row, None
        if row:
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step - 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if one is due; stop if any process received a signal."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if together() and self._step % AGREE_EVERY and not self._due_by_steps():
            return
        request = self._agreement.largest(self._request())
        if request == NOTHING or self._evaluation_follows(trainer, batch_idx):
            return
        self._row = self._unlogged(trainer)
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._row = None
        self._stop(request)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save best.ckpt and last.ckpt."""
        super().on_train_epoch_end(trainer, module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._stop(self._agreement.largest(self._request()))

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save last.ckpt where a run resumed from another file, its last.ckpt being lost, had nothing left to train."""
        start = trainer.ckpt_path
        if start is not None and Path(start).name != LAST and self._saved_step != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Keep the weights of a run that fails before its first last.ckpt, such as in its first evaluation."""
        alone = trainer.world_size == 1 and trainer.training is False
        unsaved = trainer.global_step > 0 and not (self.folder / LAST).is_file()
        if isinstance(exception, Exception) and not isinstance(exception, Stopped) and alone and unsaved:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Install the signal handlers again, since Lightning has just replaced them by its own."""
        STOP.install()

    def on_test_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Stop if any process received a signal; a resumed run repeats the whole test."""
        if together() and batch_idx % AGREE_EVERY:
            return
        self._stop(self._agreement.largest(self._request()))

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Let signals end the process at once, since this callback no longer looks for them."""
        STOP.deferred = False

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and the metrics row that was not written before the stop."""
        return super().state_dict() | {"row": self._row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with its paths moved to the run's present folder."""

        def here(path: str) -> str:
            return str(self.folder / Path(path).name) if path else path

        paths = {k: here(state_dict[k]) for k in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
        self._row = state_dict.get("row")
        if self.best_model_path and (lost := _unusable(Path(self.best_model_path))):
            rank_zero_only(say)(f"resume      {lost}; the best evaluation from here on is kept as best.ckpt")
            self.best_model_path = self.kth_best_model_path = ""
            self.best_model_score, self.kth_value, self.best_k_models = None, self._no_value, {}

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Save, unless an earlier step had a loss that was not finite.

        Raises:
            NonFiniteLossError: see `NonFiniteGuard.look`.
        """
        for callback in callbacks_of(trainer):
            if isinstance(callback, NonFiniteGuard):
                callback.look(trainer)
        super()._save_checkpoint(trainer, filepath)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    @property
    def folder(self) -> Path:
        """Folder of the checkpoints."""
        if self.dirpath is None:
            raise ValueError("callbacks.checkpoint.dirpath is not set; give the folder of the checkpoints.")
        return Path(self.dirpath)

    def _request(self) -> int:
        if STOP.received:
            return SAVE + STOP.received
        minutes = self.every_n_minutes is not None and time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return SAVE if minutes or self._due_by_steps() else NOTHING

    def _due_by_steps(self) -> bool:
        """Whether a checkpoint is due; the same in all processes, unlike a signal or the time."""
        return self.every_n_steps is not None and self._step - self._saved_step >= self.every_n_steps

    def _stop(self, request: int) -> None:
        if request > SAVE:
            WATCH.expected = True
            raise Stopped(request - SAVE)

    @staticmethod
    def _evaluation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
        """Whether this is the epoch's last step, or one after which Lightning validates."""
        last = batch_idx + 1 >= trainer.num_training_batches or trainer.should_stop
        every = trainer.val_check_batch
        return last or (every not in (None, float("inf")) and (batch_idx + 1) % every == 0)

    @staticmethod
    def _unlogged(trainer: L.Trainer) -> dict[str, float] | None:
        """Metrics of this step, which Lightning logs only after this callback; None if it logs nothing this step."""
        every = log_interval(trainer)
        if not every or trainer.global_step % every:
            return None
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        rates = {  # from the monitor, in double precision; callback_metrics has them in float32
            k: float(values[-1])
            for monitor in callbacks_of(trainer)
            if isinstance(monitor, LearningRateMonitor)
            for k, values in monitor.lrs.items()
            if values
        }
        return metrics | rates | {"epoch": trainer.current_epoch}


def _unusable(best: Path) -> str:
    """Why the final test could not read the best checkpoint of before; empty if it can."""
    if not best.is_file():
        return f"{best} is gone"
    try:
        read_content(best)
    except ConfigError as error:
        return str(error).removesuffix(".")
    return ""


class EarlyStop(EarlyStopping):
    """Lightning's early stopping, whose decision survives a restart: a resumed run does not train another epoch."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's, but the patience is that of this run's config."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """End at once if the resumed run had already decided to stop."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
