"""A step with a non-finite loss updates nothing; soon after, the run stops and names the images."""

from __future__ import annotations

from collections import deque
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from torch import Tensor
from torch.optim import Optimizer

REMEMBERED = 64  # batches whose ids are kept; more than check_every


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or NaN."""


class NonFiniteGuard(L.Callback):
    """Sets the gradients of a bad step to zero on the device and looks at a counter every few steps.

    Fused optimisers (detlab's own, but under a loss scaler) are also told to skip the step, as a loss scaler tells
    them, so that momentum and weight decay do not act either. The run ends within `check_every` steps.

    Args:
        check_every: steps between looks (each waits for the device).
    """

    def __init__(self, check_every: int = 20) -> None:
        if not 1 <= check_every <= REMEMBERED:
            raise ValueError(f"callbacks.nonfinite.check_every={check_every} must lie in 1..{REMEMBERED}.")
        self.check_every = check_every
        self._bad: Tensor | None = None
        self._recent: deque[tuple[int, Tensor, Tensor]] = deque(maxlen=REMEMBERED)
        self._ids: Tensor | None = None

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember whose batch this is."""
        self._ids = batch.ids

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Optimizer) -> None:
        """Zero all gradients if any is not finite, without waiting for the device."""
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if not gradients:
            return
        norms = torch._foreach_norm(gradients)
        bad = ~torch.isfinite(torch.stack(norms)).all()
        for gradient in gradients:
            gradient.masked_fill_(bad, 0)
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = bad.float()  # torch's fused kernels leave parameters and states as they are
        self._bad = bad if self._bad is None else self._bad | bad
        self._recent.append((trainer.global_step, self._ids, bad))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Now and then, stop if a bad step happened.

        Raises:
            NonFiniteLossError: names the step and the image ids.
        """
        if trainer.global_step % self.check_every == 0:
            self._check()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Also at the end of every epoch."""
        self._check()

    def _check(self) -> None:
        if self._bad is None or not bool(self._bad):
            return
        step, ids = next((step, ids.tolist()) for step, ids, bad in self._recent if bool(bad))
        raise NonFiniteLossError(
            f"The loss was not finite at step {step} (image ids {ids}); that step changed no weight. Look at those "
            f"images with their boxes, lower optim.lr, or set trainer.precision=32-true."
        )
