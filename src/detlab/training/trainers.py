"""What Lightning's types leave open: the data and the callbacks of this project's trainers."""

from __future__ import annotations

import lightning as L  # noqa: N812 - Lightning's own convention

from detlab.data import DetectionData


def data_of(trainer: L.Trainer) -> DetectionData:
    """The data that a trainer runs on."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it undeclared


def give_data(trainer: L.Trainer, data: DetectionData) -> None:
    """Let a trainer's module find the data, where the trainer itself is given loaders."""
    trainer.datamodule = data  # type: ignore[attr-defined]  # Lightning sets it undeclared


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """A trainer's callbacks, Lightning's own among them."""
    return trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it undeclared


def log_interval(trainer: L.Trainer) -> int:
    """Every how many steps loggers are told; 0 for never."""
    return int(trainer.log_every_n_steps or 0)  # type: ignore[attr-defined]  # Lightning sets it undeclared


def total_batch(trainer: L.Trainer) -> int:
    """Images of one optimiser step, over processes and accumulated steps."""
    return data_of(trainer).batch_size * trainer.world_size * trainer.accumulate_grad_batches
