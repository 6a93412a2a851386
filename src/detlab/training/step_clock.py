"""The time of training steps and of evaluated images."""

from __future__ import annotations

import time
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch


class StepClock(L.Callback):
    """Measures the time of training steps (including data loading) and of evaluated images."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.images, self.evaluation = 0, 0.0
        self._mark = 0.0

    @property
    def step(self) -> float:
        """Mean seconds per step, without the first if there are more."""
        timed = self.steps[1:] or self.steps
        return sum(timed) / max(1, len(timed))

    @property
    def image(self) -> float:
        """Mean seconds per evaluated image."""
        return self.evaluation / max(1, self.images)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the time of a step."""
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self.steps.append(time.perf_counter() - self._mark)
        self._mark = time.perf_counter()

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._mark = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record the time of a batch."""
        self.images += len(batch.ids)
        self.evaluation += time.perf_counter() - self._mark
        self._mark = time.perf_counter()
