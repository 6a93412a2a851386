"""Write the results of a test to the run folder: metrics, detections, ground truth, error report, worst images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from detlab.data import DetectionData
from detlab.drawing.pictures import Mark, draw_errors
from detlab.metrics.anchor_coverage import Placement, anchor_stage, coverage
from detlab.metrics.breakdown import ImageErrors, best_f1, error_report, worst_images
from detlab.metrics.collected import Found, as_one_class, coco_results, coco_truth
from detlab.metrics.error_kinds import verdicts
from detlab.ranges import Fraction
from detlab.system.files import write_json
from detlab.training.lightning_module import DetectionModule, detection
from detlab.training.trainers import data_of

SELECTED = "selected and judged on val: the best checkpoint was chosen by the same images"
COVERED_IMAGES = 500  # images for the overlap of anchors and ground truth, spread evenly over the split


class ResultWriter(L.Callback):
    """result.json (metrics, errors), detections.json (COCO results), ground_truth.json (COCO), plots/*.png.

    Plots go to TensorBoard and W&B as well.

    Args:
        run_dir: the run's folder.
        errors: write the error report, which says where AP is lost, and its plots.
        score_threshold: lowest score in the confusion matrix; null for the threshold of the best F1.
    """

    def __init__(self, run_dir: str, errors: bool = True, score_threshold: Fraction | None = None) -> None:
        self.run_dir, self.errors, self.score_threshold = Path(run_dir), errors, score_threshold

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write everything."""
        ours = detection(module)
        found = ours.found["test"]
        result = {
            "split": ours.test_split,
            **({"note": SELECTED} if ours.test_split == "val" else {}),
            "images": len(found.truth.image_ids),
            "metrics": ours.results["test"],
            "class_names": list(ours.class_names),
        }
        write_json(self.run_dir / "detections.json", coco_results(found), compact=True)
        write_json(self.run_dir / "ground_truth.json", coco_truth(found.truth), compact=True)
        write_json(self.run_dir / "result.json", result)  # written first in case the error report fails
        if self.errors:
            errors = self._report(data_of(trainer), ours, found)
            write_json(self.run_dir / "result.json", result | {"errors": errors})
            self._plot(trainer, errors, ours.final_name)

    def _report(self, data: DetectionData, module: DetectionModule, found: Found) -> dict[str, Any]:
        stage, covered = anchor_stage(module.detector), None
        if stage is not None:
            place = Placement(data.resize.target, data.collate.divisor, data.collate.canvas)
            covered = coverage(stage, found.truth, place, COVERED_IMAGES).iou
        return error_report(
            as_one_class(found) if module.detector.class_agnostic else found,
            score_threshold=self.score_threshold,
            max_detections=data.max_detections,
            coverage=covered,
            proposed=module.proposed,
        )

    def _plot(self, trainer: L.Trainer, report: dict[str, Any], split: str) -> None:
        from detlab.drawing.plots import error_figures, save  # matplotlib is slow to import; not every command plots

        (self.run_dir / "plots").mkdir(parents=True, exist_ok=True)
        for name, figure in error_figures(report).items():
            picture = save(figure, self.run_dir / "plots" / f"{name}.png")
            show_picture(trainer, f"{split}/{name}", picture)


class WorstImages(L.Callback):
    """worst/<place>-<name>.png: the images with most errors, with their false and missed boxes drawn.

    Args:
        run_dir: the run's folder.
        count: number of images; 0 for none.
        score_threshold: detections with lower scores are ignored, so boxes found only by these count as missed; null
            for the threshold of the best F1.
    """

    def __init__(self, run_dir: str, count: int = 8, score_threshold: Fraction | None = None) -> None:
        self.folder = Path(run_dir) / "worst"
        self.count, self.score_threshold = count, score_threshold

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Draw and write the images."""
        if not self.count:
            return
        ours, data = detection(module), data_of(trainer)
        found = ours.found["test"]
        found = as_one_class(found) if ours.detector.class_agnostic else found
        records = {record.id: record for record in data.records(ours.test_split)}
        self.folder.mkdir(parents=True, exist_ok=True)
        threshold = self.score_threshold
        threshold = best_f1(found, verdicts(found))["score"] if threshold is None else threshold
        for place, errors in enumerate(worst_images(found, self.count, threshold), start=1):
            image = data.source.image(records[errors.id])
            title = f"{Path(errors.name).name} (id {errors.id}), scores from {threshold:.2f}"
            picture = draw_errors(image, marks_of(errors, found.truth.class_names), title)
            picture.save(self.folder / f"{place:02d}-{Path(errors.name).stem}.png")


def marks_of(errors: ImageErrors, class_names: tuple[str, ...]) -> list[Mark]:
    """The boxes drawn on an image: correct, false and missed ones."""
    marks = [Mark(box, "true") for box in errors.right]
    marks += [Mark(b, "missed", class_names[k]) for b, k in zip(errors.unfound, errors.unfound_labels, strict=True)]
    false = zip(errors.boxes, errors.kinds, errors.labels, errors.scores, strict=True)
    return marks + [Mark(b, kind, f"{class_names[k]} {score:.2f}") for b, kind, k, score in false]


def show_picture(trainer: L.Trainer, name: str, picture: np.ndarray) -> None:
    """Send a picture [H, W, 3] to the loggers that accept pictures."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            import wandb  # slow to import, and most runs do not need it

            logger.experiment.log({name: wandb.Image(picture), "trainer/global_step": trainer.global_step})
