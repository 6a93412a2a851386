"""The time limit of training: it ends with an evaluation, and the learning rate ends with it."""

from __future__ import annotations

from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer

from detlab.errors import ConfigError
from detlab.training.processes import Agreement

PARTS = 1 << 30  # a share as a whole number, which processes exchange


class TimeLimit(Timer):
    """Lightning's timer, which also counts the time before a resumed run's interruption.

    Args:
        max_time: DD:HH:MM:SS, of training with its evaluations.

    Raises:
        ConfigError: it is no such time, or zero.
    """

    def __init__(self, max_time: str) -> None:
        try:
            super().__init__(duration=max_time, interval="step")
        except MisconfigurationException:
            self._duration = 0.0
        self.seconds = self._duration or 0.0
        if not self.seconds:
            raise ConfigError(
                f"trainer.max_time={max_time} is no length of time; give days:hours:minutes:seconds, such as "
                f"trainer.max_time=00:00:10:00 for ten minutes, or null."
            )
        self._agreement = Agreement()

    @property
    def state_key(self) -> str:
        """Lightning's, so that runs that were interrupted with its own timer resume."""
        return Timer.__qualname__

    def share(self) -> float:
        """The share of the time that has passed, 0..1, the same on all processes; every process must call it."""
        share = min(1.0, self.time_elapsed() / self.seconds)
        return self._agreement.largest(round(share * PARTS)) / PARTS

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop when the time has passed; the weights of that step are evaluated, whichever epochs are."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if trainer.should_stop and trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1
