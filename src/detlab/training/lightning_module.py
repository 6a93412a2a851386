"""The LightningModule of every family: steps, logging, metrics, optimiser, content of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detlab.detectors import TTA, Detector
from detlab.detectors.compiling import Compiled
from detlab.errors import ConfigError
from detlab.metrics.collected import CollectedDetections, Found, Measure
from detlab.model.detect import to_original
from detlab.model.overflow import forget_overflow, overflowed
from detlab.model.samplers import draw_keys
from detlab.runs.checkpoints import CHECKPOINT_KEY, LAYOUT
from detlab.system.printing import say
from detlab.tensors.ranks import mean_of_all, of_all
from detlab.tensors.structures import PADDING, Batch, Detections, Proposals
from detlab.training.batch_losses import BatchLosses
from detlab.training.multiscale import MultiScale
from detlab.training.restored import check_fits, groups_of, take_over
from detlab.training.schedules import Schedule
from detlab.training.time_limit import TimeLimit
from detlab.training.trainers import callbacks_of, data_of, log_interval, total_batch


class DetectionModule(L.LightningModule):
    """Trains and evaluates a detector.

    Args:
        detector: built for the data set's classes.
        optim: called as optim(detector, total_batch=..., fused=...) -> optimiser; fused is False if a loss scaler
            must unscale gradients before they are clipped.
        lr_schedule: called as lr_schedule(optimizer, total_steps) -> scheduler, stepped after every update.
        class_names: K names.
        category_ids: K ids of the annotation file.
        config: the resolved config; stored in checkpoints as plain containers, which load with weights_only=True.
        measures: metrics of a split, functions of all its detections.
        seed: seed of the random draws in assignment.
        monitor: metric that chooses the best checkpoint and that early stopping watches.
        tta: called as tta(detector, divisor=...) -> TTA for the test split; None to test each image once.
        divisor: with tta, canvas sides are multiples of it.
        multiscale: resizes training batches; None to keep their size.
        compiled: compile the losses before training (`detlab.detectors.compiling`).
        evaluation_loss: compute losses in validation and testing as well.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        optim: Callable[..., Optimizer],
        lr_schedule: Callable[..., LRScheduler],
        class_names: Sequence[str],
        category_ids: Sequence[int] = (),
        config: Mapping[str, Any] | None = None,
        measures: Sequence[Measure] = (),
        seed: int = 0,
        monitor: str = "val/map",
        tta: Callable[..., TTA] | None = None,
        divisor: int = 32,
        multiscale: MultiScale | None = None,
        compiled: bool = False,
        evaluation_loss: bool = True,
    ) -> None:
        super().__init__()
        self.detector, self.compiled, self.evaluation_loss = detector, compiled, evaluation_loss
        self._compiled: Compiled | None = None
        self.optim, self.lr_schedule = optim, lr_schedule
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.config = dict(config or {})
        self.measures = tuple(measures)
        self.seed, self.monitor = seed, monitor
        self.tta = None if tta is None else tta(detector, divisor=divisor)
        self.multiscale, self._total_batch = multiscale, 0
        self.results: dict[str, dict[str, float]] = {}  # {"val" or "test" loop: metrics}; see `test_split`
        self.found: dict[str, Found] = {}  # {split: the detections behind the metrics}
        self.proposed: Found | None = None  # proposals of the last test, for detectors of two stages
        self.test_split = "test"  # the split that `trainer.test` evaluates
        self._metric: CollectedDetections | None = None
        self._proposals: CollectedDetections | None = None
        self.overflowed: dict[str, int] = {}  # {split: images whose values were not finite}
        self._losses = BatchLosses()
        self._groups: list[dict[str, Any]] = []  # of the optimiser, as built
        self.began = False  # training did; what fails before is a checkpoint that cannot be restored

    def on_fit_start(self) -> None:
        if self.compiled:
            self._compiled = Compiled(self.detector)

    def on_train_start(self) -> None:
        """Check the optimiser that was restored, and give it the options of this run.

        Raises:
            ConfigError: the checkpoint is of another optimiser.
        """
        optimizer = self.trainer.optimizers[0]
        check_fits(optimizer, self._groups)
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        changes = take_over(optimizer, schedulers[0] if schedulers else None, self._groups)
        if changes:
            rank_zero_only(say)(f"resume      the optimiser goes on with {', '.join(changes)}")
        self.began = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Train the trained weights on, where the run goes on without the average that stands in their place."""
        averaged = any(isinstance(callback, WeightAveraging) for callback in callbacks_of(self.trainer))
        if self.trainer.state.fn == TrainerFn.FITTING and "current_model_state" in checkpoint and not averaged:
            checkpoint["state_dict"] = checkpoint["current_model_state"]
            rank_zero_only(say)("resume      without the average of the weights that the run kept (callbacks=ema)")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch by (seed, step, process), so that dropout is the same in a resumed and an uninterrupted run."""
        torch.manual_seed(hash((self.seed, self.global_step, batch_idx, self.global_rank)) & (2**63 - 1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Total loss of a batch (scalar); every term is logged."""
        batch = self._prepared(batch)
        with explain_single_value_norm(batch):
            losses = (self._compiled or self.detector).loss(batch)
        total = torch.stack(list(losses.values())).sum()
        values = torch.stack([*losses.values(), total]).detach()
        if self._is_logged():
            values = mean_of_all(values)
        *parts, whole = values.unbind()
        named = {f"train/{name}": value for name, value in zip(losses, parts, strict=True)}
        self.log_dict(named, batch_size=len(batch.ids))
        self.log("train/loss", whole, prog_bar=True, batch_size=len(batch.ids))
        return total

    def _is_logged(self) -> bool:
        """Whether this step is logged; only then are values averaged over processes, which synchronises them."""
        every = log_interval(self.trainer)
        return every > 0 and (self.trainer.global_step + 1) % every == 0

    def _prepared(self, batch: Batch) -> Batch:
        """A training batch with this step's size, random keys and number of images seen, functions of the step."""
        step = self.global_step
        if self.multiscale is not None:
            batch = self.multiscale(batch, self.seed, step, int(self.trainer.estimated_stepping_batches))
        seen = batch.ids.new_full((), step * self._total_batch)
        return batch._replace(keys=draw_keys(self.seed, step, batch.ids), seen=seen)

    def on_validation_epoch_start(self) -> None:
        self._start("val")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Losses and detections of a batch; callbacks receive the detections in pixels of the original images."""
        return self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    @property
    def final_name(self) -> str:
        """Prefix of the final metrics' names: "test", or "val_best" to distinguish them from metrics in training."""
        return "test" if self.test_split == "test" else f"{self.test_split}_best"

    def on_test_epoch_start(self) -> None:
        if self.test_split == "test" and not data_of(self.trainer).has("test"):
            self.test_split = "val"  # without a test split, the data module returns val's images
        self._start("test")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Same as `validation_step`, on the test split."""
        return self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._finish("test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser with its per-step schedule; the total batch counts all processes and accumulated batches."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._total_batch = total_batch(self.trainer)
        optimizer = self.optim(self.detector, total_batch=self._total_batch, fused=not scaled)
        scheduler = self.lr_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        self._groups = groups_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        """Step the schedule, which follows the time where it is limited."""
        limit = next((c for c in callbacks_of(self.trainer) if isinstance(c, TimeLimit)), None)
        if limit is not None and isinstance(scheduler, Schedule):
            scheduler.time_share = limit.share()
        scheduler.step()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm. Lightning's own check would refuse fused optimisers with bf16, where no loss is scaled."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if scaled or gradient_clip_algorithm not in (None, "norm"):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to rebuild the detector from the checkpoint alone, as plain containers."""
        checkpoint[CHECKPOINT_KEY] = {
            "config": self.config,
            "class_names": list(self.class_names),
            "category_ids": list(self.category_ids),
            "version": _version(),
            "layout": LAYOUT,
        }

    def _start(self, split: str) -> None:
        forget_overflow(self.detector)
        data = data_of(self.trainer)
        truth = data.ground_truth(self.test_split if split == "test" else split)
        limit = self.trainer.limit_test_batches if split == "test" else self.trainer.limit_val_batches
        partial = self.trainer.sanity_checking or not (isinstance(limit, float) and limit >= 1)
        self._metric = CollectedDetections(truth, self.measures, partial=partial)
        self._losses = BatchLosses()
        self._proposals = CollectedDetections(truth, partial=partial) if split == "test" else None

    def _evaluate(self, batch: Batch, split: str) -> dict[str, Any]:
        losses, found, proposals = self.detector.evaluate(batch, with_loss=self.evaluation_loss)
        if losses:
            total = torch.stack(list(losses.values())).sum()
            said = self.final_name if split == "test" else split
            values = {f"{said}/{name}": value for name, value in {**losses, "loss": total}.items()}
            self._losses.add(values, batch.ids)
        if split == "test" and self.tta is not None and self.tta.active:
            found = self.tta.detect(batch)
        detections = to_original(found, batch)
        assert self._metric is not None  # since `_start`
        self._metric.update(detections, batch.ids)
        if self._proposals is not None:
            self._proposals = _with_proposals(self._proposals, proposals, batch)
        return {"detections": detections, "ids": batch.ids, "batch": batch}

    def _finish(self, split: str) -> None:
        metric = self._metric
        assert metric is not None  # since `_start`
        results = metric.compute()
        if not self.trainer.sanity_checking:
            self.results[split] = results
            self.overflowed[split] = sum(of_all(overflowed(self.detector)))
            self.found[split] = metric.merged()
            self.log_dict(self._losses.means())
            said = self.final_name if split == "test" else split
            self.log_dict({f"{said}/{name}": value for name, value in results.items()})
        if self._proposals is not None:
            self.proposed = self._proposals.merged()
        self._metric = self._proposals = None


def _with_proposals(kept: CollectedDetections, proposals: Proposals | None, batch: Batch) -> CollectedDetections | None:
    """Add the proposals of a batch to those collected so far; None for a one-stage detector."""
    if proposals is None:
        return None
    labels = torch.where(proposals.real, 0, PADDING)
    kept.update(to_original(Detections(proposals.boxes, proposals.scores, labels), batch), batch.ids)
    return kept


@contextmanager
def explain_single_value_norm(batch: Batch) -> Iterator[None]:
    """Context manager that explains torch's error about a batch norm with one value per channel.

    Raises:
        ConfigError: the batch has one image, and one of its feature maps is 1x1.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ConfigError(
            f"A training batch of {len(batch.ids)} image of {tuple(batch.images.shape[-2:])} px leaves a batch norm "
            f"one value per channel, which has no variance; use a data.batch_size that leaves no image alone at the "
            f"end of an epoch, a larger data.size, or norm=gn where the map is made (model.backbone.norm, "
            f"model.neck.norm)."
        ) from error


def _version() -> str:
    try:
        return version("detlab")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "unknown"


def detection(module: L.LightningModule) -> DetectionModule:
    """The module given to a callback, typed as detlab's own."""
    return cast(DetectionModule, module)
