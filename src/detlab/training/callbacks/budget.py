"""Write budget.json: the cost of a run, so that reports can check that compared runs had equal budgets."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from detlab.detectors import Detector
from detlab.ranges import Natural
from detlab.system.files import read_json, write_json
from detlab.tensors.structures import Batch
from detlab.training.lightning_module import detection
from detlab.training.trainers import total_batch

FILE = "budget.json"
LONGEST = 5.0  # seconds; limit for timing single images


class Budget(L.Callback):
    """Epochs, images seen, device hours, total batch, learning rate, parameters; FLOPs and latency of one test image.

    FLOPs come from torch's counter: convolutions and matrix products, where a multiplication and an addition count as
    two. Latency is the median time of `detect` on one image; it includes NMS, but not decoding the file.

    Args:
        run_dir: the run's folder.
        repeats: number of timed passes; 0 disables FLOPs and latency.
    """

    def __init__(self, run_dir: str, repeats: Natural = 10) -> None:
        self.path, self.repeats = Path(run_dir) / FILE, repeats
        self.facts: dict[str, Any] = {}
        self._start, self._before = time.monotonic(), 0.0
        self._image: Batch | None = None

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock; a resumed run adds to the cost of its earlier parts."""
        self._start = time.monotonic()
        spent = read_json(self.path) if detection(module).config.get("resume") else None
        self._before = (spent or {}).get("seconds", 0.0)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the cost so far."""
        if trainer.training and not trainer.sanity_checking:
            self._note(trainer, module, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the cost of training."""
        self._note(trainer, module, trainer.current_epoch)

    def on_test_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep one test image."""
        if self._image is None:
            self._image = first_image(batch)

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure FLOPs and latency on that image."""
        image, self._image = self._image, None
        if image is None or not self.repeats:
            return
        detector = detection(module).detector
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            with FlopCounterMode(display=False) as counter:
                detector.detect(image)
            times = self._times(detector, image)
        self.facts |= {"flops": counter.get_total_flops(), "latency_ms": 1000 * statistics.median(times)}
        write_json(self.path, self.facts)

    def _times(self, detector: Detector, image: Batch) -> list[float]:
        times: list[float] = []
        while len(times) < self.repeats and sum(times) < LONGEST:
            start = time.monotonic()
            detector.detect(image)
            if image.images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.monotonic() - start)
        return times

    @rank_zero_only
    def _note(self, trainer: L.Trainer, module: L.LightningModule, epochs: int) -> None:
        total = total_batch(trainer)
        sizes = [(p.numel(), p.requires_grad) for p in detection(module).detector.parameters()]
        seconds = self._before + time.monotonic() - self._start
        rates = [group.get("initial_lr", group["lr"]) for group in trainer.optimizers[0].param_groups]
        self.facts |= {
            "epochs": epochs,
            "images_seen": trainer.global_step * total,
            "batch": total,
            "lr": max(rates),
            "seconds": seconds,
            "hours": seconds * trainer.world_size / 3600,
            "parameters": sum(n for n, _ in sizes),
            "trainable": sum(n for n, trains in sizes if trains),
        }
        write_json(self.path, self.facts)


def first_image(batch: Batch) -> Batch:
    """A one-image batch: the first image of a batch."""

    def cut(value: Any) -> Any:
        if value is None:
            return None
        return value[:1] if isinstance(value, torch.Tensor) else type(value)(*(cut(v) for v in value))

    return Batch(*(cut(value) for value in batch))
