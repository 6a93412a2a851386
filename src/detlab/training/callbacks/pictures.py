"""Draw ground truth beside predictions on the same few images at every evaluation, to a file and the loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from detlab.drawing.pictures import Boxes, comparison_sheet
from detlab.ranges import Fraction, Natural
from detlab.tensors.structures import Batch, Detections
from detlab.training.lightning_module import detection


class ValidationPictures(L.Callback):
    """Writes pictures/<split>-step<N>.png and shows it in TensorBoard and W&B (there with box overlays).

    Args:
        run_dir: the run's folder.
        count: number of images, from the start of the split.
        score_threshold: lowest score of the predictions drawn.
    """

    def __init__(self, run_dir: str, count: Natural = 8, score_threshold: Fraction = 0.5) -> None:
        self.folder = Path(run_dir) / "pictures"
        self.count, self.score_threshold = count, score_threshold
        self.latest: Path | None = None
        self._kept: list[tuple[Tensor, Boxes, Boxes]] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images."""
        self._keep(trainer, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images."""
        self._keep(trainer, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write and log them."""
        self._show(trainer, module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write and log them."""
        self._show(trainer, module, detection(module).final_name)

    def _keep(self, trainer: L.Trainer, outputs: STEP_OUTPUT, batch: Batch) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or not isinstance(outputs, Mapping):
            return
        missing = min(self.count - len(self._kept), len(batch.ids))
        if missing <= 0:  # the later batches stay on their device
            return
        scale = (batch.sizes / batch.original_sizes).flip(-1).repeat(1, 2).cpu()
        detections: Detections = outputs["detections"].to("cpu")
        for i in range(missing):
            height, width = batch.sizes[i].tolist()
            real = batch.truth.real[i].cpu()
            truth = Boxes(batch.truth.boxes[i].cpu()[real].numpy(), batch.truth.labels[i].cpu()[real].numpy())
            shown = detections.real[i] & (detections.scores[i] >= self.score_threshold)
            found = Boxes(
                (detections.boxes[i][shown] * scale[i]).numpy(),
                detections.labels[i][shown].numpy(),
                detections.scores[i][shown].numpy(),
            )
            self._kept.append((batch.images[i, :, :height, :width].cpu(), truth, found))

    def _show(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        kept, self._kept = self._kept, []
        if not kept or not trainer.is_global_zero or trainer.sanity_checking:
            return
        names = _names(module)
        images, truths, found = zip(*kept, strict=True)
        sheet = comparison_sheet(images, _within(truths, names), found, names)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.latest = self.folder / f"{split}-step{trainer.global_step:06d}.png"
        sheet.save(self.latest)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    f"{split}/pictures", np.asarray(sheet), trainer.global_step, dataformats="HWC"
                )
            elif isinstance(logger, WandbLogger):
                overlays = [wandb_image(*row, names) for row in kept]
                logger.experiment.log({f"{split}/pictures": overlays, "trainer/global_step": trainer.global_step})


def wandb_image(image: Tensor, truth: Boxes, found: Boxes, class_names: tuple[str, ...]) -> Any:
    """A wandb.Image [3, H, W] with ground truth and predictions as W&B's own box overlays."""
    import wandb  # slow to import, and most runs do not need it

    titles = dict(enumerate(class_names))

    def overlay(boxes: Boxes) -> dict[str, Any]:
        scores = [None] * len(boxes.labels) if boxes.scores is None else boxes.scores.tolist()
        rows = []
        for box, label, score in zip(boxes.boxes.tolist(), boxes.labels.tolist(), scores, strict=True):
            row: dict[str, Any] = {
                "position": dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True)),
                "domain": "pixel",
                "class_id": int(label),
                "box_caption": titles[int(label)] + ("" if score is None else f" {score:.2f}"),
            }
            if score is not None:
                row["scores"] = {"score": score}
            rows.append(row)
        return {"box_data": rows, "class_labels": titles}

    return wandb.Image(
        image.permute(1, 2, 0).numpy(),
        boxes={"ground_truth": overlay(truth), "predictions": overlay(found)},
    )


def _names(module: L.LightningModule) -> tuple[str, ...]:
    ours = detection(module)
    return ("object",) if ours.detector.class_agnostic else ours.class_names


def _within(truths: tuple[Boxes, ...], names: tuple[str, ...]) -> list[Boxes]:
    """Ground truth with labels limited to the given names: all become 0 for a class-agnostic detector."""
    return [t._replace(labels=np.minimum(t.labels, len(names) - 1)) for t in truths]
