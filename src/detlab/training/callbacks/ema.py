"""Exponential moving average (EMA) of the weights."""

from __future__ import annotations

from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class EMA(EMAWeightAveraging):
    """Lightning's EMA callback, changed so that the final test uses the averaged weights.

    Lightning's callback restores the trained weights whenever a checkpoint is loaded. The test would then use other
    weights than the validation that chose the checkpoint.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both sets of weights to continue training, but only the average (`state_dict`) to test."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)
