"""The learning rates in the log."""

from __future__ import annotations

from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import LearningRateMonitor


class LearningRates(LearningRateMonitor):
    """Lightning's monitor, with one row a step: under accumulation, Lightning writes one for each micro-batch."""

    def on_train_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Forget which step was logged last."""
        super().on_train_start(trainer, *args, **kwargs)
        self._logged = -1

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log the rates before the first micro-batch of a step."""
        if trainer.global_step != self._logged:
            self._logged = trainer.global_step
            super().on_train_batch_start(trainer, *args, **kwargs)
