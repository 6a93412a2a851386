"""Carry out a run from its config: checks, training and the final test. Only the commands use Hydra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import ModelCheckpoint

from detlab.config.compose import config_hash
from detlab.config.parts import build_part
from detlab.config.rules import check
from detlab.detectors import Detector
from detlab.errors import ConfigError, DataError
from detlab.runs.folder import claimed, rank
from detlab.runs.resuming import Start, finished_score, start_of
from detlab.system.memory import ran_out
from detlab.tensors.ranks import meet
from detlab.training.build import build
from detlab.training.callbacks import RunStatus
from detlab.training.callbacks.status import forget_words, leave_words
from detlab.training.environment import set_up_torch
from detlab.training.machine import check_machine
from detlab.training.processes import WATCH
from detlab.training.run import Run
from detlab.training.signals import STOP, Stopped
from detlab.training.trainers import callbacks_of

REPORTING = timedelta(days=1)  # longest wait for rank 0's final report; its death is noticed by WATCH


def train(config: dict[str, Any]) -> float | None:
    """Train and test in the stages of the config's `training` node.

    Args:
        config: resolved, in plain containers.

    Returns:
        The monitored metric's best value.

    Raises:
        ConfigError, DataError: before training, if options or data do not fit or another process holds the folder.
    """
    check(config)
    check_machine(config)
    with claimed(Path(config["paths"]["run_dir"]), resume=config["resume"] is True):
        return _train(config)


def _train(config: dict[str, Any]) -> float | None:
    finished, score = finished_score(config)
    if finished:
        return score
    set_up_torch(config)
    STOP.install()
    folder = Path(config["paths"]["run_dir"])
    if not rank():
        forget_words(folder)
    try:
        score = build_part(config["training"])(config | {"config_hash": config_hash(config)})
        WATCH.expected = True  # all ranks have reached the end of the run: exits are no longer failures
        meet(REPORTING)
        return score
    except BaseException as error:
        state, reason = ending(error)
        if rank() and state == "failed":
            leave_words(folder, rank(), reason)
        raise
    finally:
        STOP.remove()


def fit(config: dict[str, Any], prepare: Callable[[Detector], None] | None = None) -> Run:
    """Train a detector, from its newest checkpoint with resume=true; test its best checkpoint with test=true.

    Args:
        config: config of the run, or of one of its stages.
        prepare: called with the new detector before training, to load or freeze weights.
    """
    start = start_of(config)
    run = build(config, prepare, start)
    with watched(run):
        with restorable(run, start):
            run.trainer.fit(run.module, datamodule=run.data, ckpt_path=start.checkpoint, weights_only=True)
        if config["test"]:
            best = _best(run.trainer)
            run.trainer.test(
                run.module,
                datamodule=run.data,
                ckpt_path=best,
                verbose=False,
                weights_only=True if best else None,
            )
    return run


@contextmanager
def restorable(run: Run, start: Start) -> Iterator[None]:
    """Context manager that explains what fails before training began: the checkpoint is not one of such a run.

    Raises:
        ConfigError: names the checkpoint, and what cannot be restored.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        if start.checkpoint is None or run.module.began or ran_out(error) or isinstance(error, ConfigError | DataError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"resume=true cannot restore {start.checkpoint} in this run ({type(error).__name__}: {reason}); give the "
            f"options of before, or start another run with init_from={start.checkpoint}."
        ) from error


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Context manager that writes the end of the run to status.json and closes the loggers."""
    status = next((c for c in callbacks_of(run.trainer) if isinstance(c, RunStatus)), None)
    state, reason = "failed", None
    try:
        yield
        state = "finished"
    except BaseException as error:
        state, reason = ending(error)
        raise
    finally:
        if status is not None:
            status.finish(state, reason, score=best_score(run))
        _close_loggers(state)


def best_score(run: Run) -> float | None:
    """The best value of the monitored metric in training."""
    callback = run.trainer.checkpoint_callback
    score = callback.best_model_score if isinstance(callback, ModelCheckpoint) else None
    return None if score is None else float(score)


def ending(error: BaseException) -> tuple[str, str]:
    """(state, reason) for status.json of a run that ends with an error."""
    dead = WATCH.dead()  # a dead rank is the cause of the error
    hung = WATCH.end_children()
    if isinstance(error, Stopped):
        return "stopped", "; ".join(text for text in (str(error), hung) if text)
    return "failed", "; ".join(text for text in (dead, f"{type(error).__name__}: {error}", hung) if text)


def _best(trainer: L.Trainer) -> str | None:
    callback = trainer.checkpoint_callback
    return (callback.best_model_path or None) if isinstance(callback, ModelCheckpoint) else None


def _close_loggers(state: str) -> None:
    """Finish a W&B run with the exit code of this run; wandb is imported only if the run used it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=0 if state == "finished" else 1)
