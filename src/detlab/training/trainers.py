"""Typed access to the data and callbacks of a trainer, which Lightning does not type."""

from __future__ import annotations

import lightning as L  # noqa: N812 - Lightning's own convention

from detlab.data import DetectionData


def data_of(trainer: L.Trainer) -> DetectionData:
    """The data module of a trainer."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it undeclared


def give_data(trainer: L.Trainer, data: DetectionData) -> None:
    """Set a trainer's data module, for a trainer that is called with loaders."""
    trainer.datamodule = data  # type: ignore[attr-defined]  # Lightning sets it undeclared


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """A trainer's callbacks, including Lightning's own."""
    return trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it undeclared


def log_interval(trainer: L.Trainer) -> int:
    """Number of steps between logged steps; 0 for never."""
    return int(trainer.log_every_n_steps or 0)  # type: ignore[attr-defined]  # Lightning sets it undeclared


def total_batch(trainer: L.Trainer) -> int:
    """Images per optimiser step, over all processes and accumulated batches."""
    return data_of(trainer).batch_size * trainer.world_size * trainer.accumulate_grad_batches
