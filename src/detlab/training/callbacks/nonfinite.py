"""Stop a run whose loss is not finite: skip all updates from that step on, then report the step's images."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from detlab.ranges import Range
from detlab.tensors.archive import save_tensors
from detlab.tensors.ranks import of_all, together
from detlab.tensors.structures import Batch
from detlab.training.trainers import data_of

REMEMBERED = 64  # steps whose image ids are kept; larger than check_every
NAMED = 16  # images named in the message at most


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or NaN."""


class _Step(NamedTuple):
    number: int
    epoch: int
    ids: Tensor  # [B]
    bad: Tensor  # scalar bool, on the device: this step or an earlier one was not finite


class NonFiniteGuard(L.Callback):
    """Undoes a bad (non-finite) step on the device, and reads the flag from the device every few steps.

    From the first bad step on, no step changes weights, optimiser state or batch-norm statistics. Fused optimisers
    skip the step as they do for a loss scaler; other optimisers get gradients of zero. The run stops within
    `check_every` steps, still with the weights that gave the bad loss, and writes them with the batch to
    nonfinite/step<N>-rank<R>.ckpt. No checkpoint is saved after a bad step.

    With a loss scaler, infinite gradients are normal; then only the loss itself is checked.

    Args:
        check_every: steps between reads of the flag (each read waits for the device).
        run_dir: the run's folder, for the file; null to write none.
    """

    def __init__(self, check_every: Annotated[int, Range(1, 50)] = 20, run_dir: str | None = None) -> None:
        if not 1 <= check_every <= 50:
            raise ValueError(f"callbacks.nonfinite.check_every={check_every} must lie in 1..50.")
        self.check_every = check_every
        self.folder = None if run_dir is None else Path(run_dir) / "nonfinite"
        self._loss: Tensor | None = None  # scalar bool: a loss of this step was not finite
        self._bad: Tensor | None = None
        self._recent: deque[_Step] = deque(maxlen=REMEMBERED)
        self._ids: list[Tensor] = []
        self._statistics: _Statistics | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Find the batch norms that train."""
        self._statistics = _Statistics(module)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember the image ids of this batch and the batch-norm statistics before it."""
        if not self._ids:
            self._statistics = self._statistics or _Statistics(module)
            self._statistics.remember()
        self._ids.append(batch.ids)

    def on_before_backward(self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor) -> None:
        """Record whether the loss is finite."""
        bad = ~torch.isfinite(loss.detach()).all()
        self._loss = bad if self._loss is None else self._loss | bad
        if self._bad is not None and _scaled(trainer):
            loss.mul_(torch.where(self._bad, torch.nan, 1.0))  # makes the scaler skip this step too

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Optimizer) -> None:
        """Suppress the update of a bad step without waiting for the device."""
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        bad, self._loss = self._loss, None
        if not _scaled(trainer) and gradients:
            bad = ~torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all() | (False if bad is None else bad)
        if bad is None:
            return
        bad = _anywhere(bad)
        self._bad = bad if self._bad is None else self._bad | bad
        if optimizer.defaults.get("fused"):
            # torch's fused kernels skip the update of parameters and states if found_inf is 1
            optimizer.found_inf = self._bad.float()  # type: ignore[attr-defined]  # torch reads it undeclared
        else:
            for gradient in gradients:
                gradient.masked_fill_(self._bad, 0)
        if self._statistics is not None:
            self._statistics.restore(self._bad)
        ids, self._ids = torch.cat(self._ids), []
        self._recent.append(_Step(trainer.global_step, trainer.current_epoch, ids, self._bad.clone()))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Every `check_every` steps, stop if a bad step happened.

        Raises:
            NonFiniteLossError: see `look`.
        """
        if trainer.global_step % self.check_every == 0:
            self.look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Check at the end of every epoch too."""
        self.look(trainer)

    def look(self, trainer: L.Trainer) -> None:
        """Wait for the device and stop if a bad step happened in any process; all processes must call it.

        Raises:
            NonFiniteLossError: the message names the step, the images and the file.
        """
        own = self._bad is not None and bool(self._bad)
        first = next((step for step in self._recent if bool(step.bad)), None) if own else None
        found = [f for f in of_all(None if first is None else (first.number, first.ids.tolist())) if f is not None]
        if not found:
            return
        step = min(number for number, _ in found)
        images = sorted({i for number, ids in found if number == step for i in ids})
        file = None if first is None else self._write(trainer, first)
        look = f"`detlab check batch={file}` repeats the step; look" if file else "Look"
        raise NonFiniteLossError(
            f"The loss was not finite at step {step} (image ids {images[:NAMED]}: {self._names(trainer, images)}); "
            f"neither that step nor one after it changed a weight. {look} at those images with their boxes, lower "
            f"optim.lr, or set trainer.precision=32-true."
        )

    def _names(self, trainer: L.Trainer, ids: list[int]) -> str:
        data = data_of(trainer)
        names = {r.id: r.name for r in data.records("train")} if hasattr(data, "records") else {}
        return ", ".join(names.get(i, "?") for i in ids[:NAMED]) + (" ..." if len(ids) > NAMED else "")

    def _write(self, trainer: L.Trainer, step: _Step) -> Path | None:
        """Write the weights with the batch, rebuilt from its image ids (samples depend on seed, epoch and id only)."""
        data = data_of(trainer)
        if self.folder is None or not hasattr(data, "samples"):
            return None
        file = self.folder / f"step{step.number:06d}-rank{trainer.global_rank}.ckpt"
        with suppress(OSError):  # a full disk must not hide the non-finite loss
            batch = data.samples(step.ids.tolist(), step.epoch)
            write_batch(file, trainer.lightning_module, batch, step.number)
            return file
        return None


def write_batch(file: Path, module: L.LightningModule, batch: Batch, step: int) -> None:
    """Write a checkpoint that also holds a batch and its step, for `detlab check batch=FILE`."""
    content: dict[str, Any] = {"state_dict": module.state_dict(), "batch": _plain(batch), "step": step}
    module.on_save_checkpoint(content)
    save_tensors(file, content)


def _plain(value: Any) -> Any:
    """Named tuples of tensors as dictionaries, which load with weights_only=True."""
    if hasattr(value, "_asdict"):
        return {k: _plain(v) for k, v in value._asdict().items()}
    return value.cpu() if isinstance(value, Tensor) else value


class _Statistics:
    """Running statistics that batch norms in training mode update in every forward pass, and their values before it.

    ResNet-50 has 159 such buffers. They are copied as one tensor of each dtype: a few operations a step, not 480.
    """

    def __init__(self, module: nn.Module) -> None:
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        self._groups: dict[torch.dtype, list[Tensor]] = {}
        for buffer in (buffer for norm in norms for buffer in norm.buffers(recurse=False)):
            self._groups.setdefault(buffer.dtype, []).append(buffer)
        self._before: list[Tensor] = []

    def remember(self) -> None:
        """Keep the present values."""
        self._before = [_flat(group) for group in self._groups.values()]

    def restore(self, bad: Tensor) -> None:
        """Put the remembered values back where `bad` (scalar bool) is true, without asking the device."""
        for group, before in zip(self._groups.values(), self._before, strict=True):
            parts = torch.where(bad, before, _flat(group)).split([buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view_as(buffer) for part, buffer in zip(parts, group, strict=True)])


def _flat(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers])


def _anywhere(bad: Tensor) -> Tensor:
    """Whether a flag is set in any process, on the device; all must skip a step together, or their weights differ."""
    if not together():
        return bad
    count = bad.float()
    distributed.all_reduce(count, distributed.ReduceOp.MAX)
    return count > 0


def _scaled(trainer: L.Trainer) -> bool:
    """Whether a loss scaler handles infinite gradients."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None
