"""An exponential average of the weights."""

from __future__ import annotations

from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class EMA(EMAWeightAveraging):
    """Lightning's average, which is also what the final test judges.

    Lightning's own callback puts the trained weights back whenever a checkpoint is loaded, so that the test would judge
    other weights than the validation that chose the checkpoint.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Both sets of weights to go on training; the average, which is the checkpoint's state_dict, to test."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)
