"""Print the summary of a run before training and its results after the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.utilities import rank_zero_only
from rich.table import Table

from detlab.data import DetectionData
from detlab.data.audit import MANY, names
from detlab.data.transforms import Resize
from detlab.metrics.summary import summary_rows
from detlab.model.overflow import overflow_note
from detlab.system.printing import say, show
from detlab.training.callbacks import ValidationPictures
from detlab.training.lightning_module import DetectionModule
from detlab.training.notes import plan_notes
from detlab.training.optim import effective_lr
from detlab.training.run import Run
from detlab.training.trainers import callbacks_of


def report(run: Run, run_dir: Path) -> None:
    """Print the final table, the run folder and the picture."""
    judged = "test" in run.module.results
    results = run.module.results.get("test" if judged else "val")
    if not run.trainer.is_global_zero or results is None:
        return
    split = run.module.test_split if judged else "val"
    print_results(results, f"{split} split" + (", selected and judged on val" if split == "val" else ""))
    for line in [*split_notes(run.data, split), *overflow_notes(run.module, "test" if judged else "val", "The model")]:
        say(f"note        {line}")
    say(f"run folder  {run_dir}")
    pictures = next((c for c in callbacks_of(run.trainer) if isinstance(c, ValidationPictures)), None)
    if pictures is not None and pictures.latest is not None:
        say(f"picture     {pictures.latest}")


def split_notes(data: DetectionData, split: str, wanted: str = "test") -> list[str]:
    """Caveats about the split on which the final metrics were computed.

    Args:
        split: the split that was evaluated.
        wanted: the split that was asked for.
    """
    notes = []
    if split == "val" and wanted == "test":
        notes.append(
            "val's images chose the best checkpoint, too, so these numbers flatter it; data.test_fraction=0.2, or a "
            "test split of the data set's own, sets images aside that nothing was chosen by."
        )
    if not data.counted(split):
        notes.append(f"The {split} split has no box that counts, so its AP is not defined.")
    return notes


def overflow_notes(module: DetectionModule, loop: str, source: str) -> list[str]:
    """A note on images whose values were not finite in the last validation or test; empty if all were."""
    count, images = module.overflowed.get(loop, 0), len(module.found[loop].truth.image_ids)
    return [overflow_note(count, images, source)] if count else []


def print_results(results: Mapping[str, float], title: str) -> None:
    """Print metrics as a table."""
    table = Table(title=title)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in summary_rows(results):
        table.add_row(name, value)
    show(table)


@rank_zero_only
def say_audit(data: DetectionData) -> None:
    """Print the findings of the data audit."""
    counts = ", ".join(f"{s} {len(data.records(s))}" for s in ("train", "val", "test") if data.has(s))
    say(f"data        {counts} images; {data.num_classes} classes: {names(data.class_names, MANY)}")
    for note in data.notes:
        say(f"note        {note}")
    rows = data.report.as_rows()
    if rows:
        table = Table("split", "dirt", "count", "what is done", "examples", title="data audit")
        for row in rows:
            table.add_row(*row)
        show(table)


@rank_zero_only
def input_line(resize: Resize) -> str:
    """The size that images are resized to, for the lines before training."""
    if resize.mode != "short_side":
        return f"{resize.mode} {resize.size[0]} x {resize.size[1]} px (height x width)"
    return f"short_side {resize.size[0]}" + (" px" if resize.max_size is None else f", at most {resize.max_size} px")


def say_plan(
    config: Mapping[str, Any], identity: str, trainer: L.Trainer, module: DetectionModule, data: DetectionData
) -> None:
    """Print what the config only implies: trained parameters, total batch, learning rate, input size; and notes."""
    table = Table("stage", "trainable", "parameters", title="parameters")
    rows = [(f"backbone {name}", a, b) for name, a, b in module.detector.backbone.trainable_report()]
    for name, child in module.detector.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in child.parameters()]
        if name != "backbone" and sizes:
            rows.append((name, sum(n for n, grad in sizes if grad), sum(n for n, _ in sizes)))
    for name, trainable, total in rows:
        table.add_row(name, f"{trainable:,}", f"{total:,}")
    trainable, total = sum(row[1] for row in rows), sum(row[2] for row in rows)
    table.add_row("all", f"{trainable:,}", f"{total:,}", style="bold")
    show(table)
    backbone = module.detector.backbone
    batch = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches  # the trainer has no data yet
    accumulated = f" x {trainer.accumulate_grad_batches} steps" if trainer.accumulate_grad_batches > 1 else ""
    lines = {
        "backbone": f"weights {backbone.weights}, norm {backbone.norm}, frozen stages {backbone.frozen_stages}",
        **({"neck": module.detector.neck.note} if module.detector.neck.note else {}),
        "input": input_line(data.resize),
        "batch": f"{batch} = {data.batch_size} x {trainer.world_size} processes{accumulated}",
        "optimiser": optimiser_line(config["optim"], batch),
        "precision": f"{trainer.precision} on {trainer.strategy.root_device}",
        "run": f"{config['paths']['run_dir']} (config {identity})",
    }
    if config["trainer"].get("max_time"):
        lines["time"] = f"{config['trainer']['max_time']} of training at most; the learning rate ends with it"
    for name, text in lines.items():
        say(f"{name:11} {text}")
    for note in plan_notes(config, trainer, module, data):
        say(f"note        {note}")


def optimiser_line(optim: Mapping[str, Any], batch: int) -> str:
    """Its name and learning rate; an optimiser of the user's own may lack `lr` and the options that scale it."""
    name = _class_name(optim["_target_"])
    if not {"lr", "base_batch_size", "lr_scaling"} <= optim.keys():
        return f"{name}, learning rate {optim['lr']}" if "lr" in optim else name
    rate = effective_lr(optim["lr"], batch, optim["base_batch_size"], optim["lr_scaling"])
    return (
        f"{name}, learning rate {rate:.3g} ({optim['lr']} at {optim['base_batch_size']} images, {optim['lr_scaling']} "
        f"scaling)"
    )


def _class_name(target: str) -> str:
    return target.rsplit(".", 1)[-1]
