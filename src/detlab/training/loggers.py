"""Loggers that go on where an interrupted run stood, and what dashboards get at the end of a run."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from detlab.files import read_json, write_whole
from detlab.runs.first_process import first_process
from detlab.training.trainers import detection

NAME_LENGTH = 128  # of W&B's run names
SWEEP_ENV = "DETLAB_SWEEP"  # the launcher tells a job the name of its sweep
WANDB_ID = "wandb_id"  # file in the run folder


class MetricsFile(CSVLogger):
    """metrics.csv in a folder; a resumed run keeps the rows before the step it goes on from.

    Args:
        save_dir: the folder.
        keep_steps: of a resumed run: rows of steps below it stay. Lightning's logger alone deletes the file.
    """

    def __init__(self, save_dir: str, keep_steps: int | None = None) -> None:
        super().__init__(save_dir=save_dir, name="", version="", flush_logs_every_n_steps=50)
        self.keep_steps = keep_steps
        self._opened = False

    @property
    def experiment(self) -> Any:
        """Lightning's writer, which has read the rows that stay."""
        if self._opened:
            return super().experiment
        self._opened = True
        rows = self._kept()
        writer = super().experiment
        if writer is not None and rows:  # a placeholder in all processes but the first
            writer.metrics = rows
            writer.save()
        return writer

    def _kept(self) -> list[dict[str, str]]:
        file = Path(self.log_dir) / "metrics.csv"
        if not self.keep_steps or not file.is_file():
            return []
        with file.open(newline="") as lines:
            rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(lines)]
        return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < self.keep_steps]


def tensorboard_logger(*, save_dir: str, keep_steps: int | None = None) -> TensorBoardLogger:
    """Events in save_dir/tensorboard; of a resumed run those of steps from keep_steps on are hidden."""
    purge: dict[str, Any] = {} if keep_steps is None else {"purge_step": keep_steps}
    return TensorBoardLogger(save_dir=save_dir, name="tensorboard", version="", default_hp_metric=False, **purge)


def wandb_logger(
    *,
    save_dir: str,
    project: str,
    name: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    offline: bool | None = None,
    keep_steps: int | None = None,
) -> WandbLogger:
    """A W&B logger that never asks: offline unless WANDB_API_KEY is set or `offline` says otherwise.

    Jobs of a sweep are grouped by it. The run's id lies in wandb_id in the run folder, so that a resumed run
    (keep_steps is given) is the same run there. Files lie in save_dir/wandb; `wandb sync` in the run folder sends
    them later.
    """
    if offline is None:
        offline = not os.environ.get("WANDB_API_KEY")
    os.environ.setdefault("WANDB_SILENT", "true")
    group = group or os.environ.get(SWEEP_ENV)
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        name=name[:NAME_LENGTH],
        group=group,
        job_type="train",
        tags=list(tags),
        offline=offline,
        id=_wandb_id(Path(save_dir), new=keep_steps is None),
        resume="allow",
    )


def _wandb_id(folder: Path, new: bool) -> str:
    """The id in a run folder; a new one where there is none or a run starts afresh."""
    file = folder / WANDB_ID
    if not new and file.is_file():
        return file.read_text().strip()
    made = uuid.uuid4().hex[:8]
    if first_process():  # the others log nothing
        write_whole(file, made.encode())
    return made


class Dashboards(L.Callback):
    """Fills TensorBoard's HParams tab, and W&B's summary, tables and precision-recall curves, after the final test.

    Args:
        run_dir: the run's folder, whose result.json has the curves.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / "result.json"

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Tell them."""
        metrics, config = detection(module).results["test"], detection(module).config
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                chosen = {key: v for key, v in flat(config).items() if not key.startswith(("paths.", "callbacks."))}
                totals = {f"hparam/{key}": value for key, value in metrics.items() if "/" not in key}
                logger.log_hyperparams(chosen, totals)
            elif isinstance(logger, WandbLogger):
                errors = (read_json(self.path) or {}).get("errors") or {}
                _tell_wandb(logger.experiment, metrics, errors.get("pr_curves"))


def _tell_wandb(run: Any, metrics: Mapping[str, float], curves: Mapping[str, Any] | None) -> None:
    import wandb  # slow to import, and most runs do without

    run.summary.update({f"test/{key}": value for key, value in metrics.items()})
    rows = [[key[3:], value] for key, value in metrics.items() if key.startswith("ap/")]
    if rows:
        run.log({"test/ap_by_class": wandb.Table(columns=["class", "AP"], data=rows)})
    if curves:
        names, at_half = list(curves["precision"]), [c[0] for c in curves["precision"].values()]
        recalls = [i / 100 for i in range(101)]
        chart = wandb.plot.line_series(recalls, at_half, keys=names, title="precision at IoU 0.5", xname="recall")
        run.log({"test/precision_recall": chart})


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as text, since loggers take plain values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return found
