"""Loggers that continue in a resumed run, and the final results for dashboards."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import yaml
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from detlab.config.overrides import short_names
from detlab.runs.first_process import first_process
from detlab.system.files import read_facts, write_whole
from detlab.training.lightning_module import detection

NAME_LENGTH = 128  # longest name of a W&B run
SWEEP_ENV, CHOICES_ENV = "DETLAB_SWEEP", "DETLAB_CHOICES"  # set by the launcher for each job of a sweep
NO_CHOICE = ("hydra.", "paths.", "logger", "callbacks", "resume", "threads", "name")  # no hyperparameters
WANDB_ID, MLFLOW_ID = "wandb_id", "mlflow_id"  # files in the run folder


class MetricsFile(CSVLogger):
    """metrics.csv in a folder; a resumed run keeps the rows before the step from which it resumes.

    Args:
        save_dir: the folder.
        keep_steps: in a resumed run, rows of earlier steps are kept. Lightning's logger would delete the file.
    """

    def __init__(self, save_dir: str, keep_steps: int | None = None) -> None:
        super().__init__(save_dir=save_dir, name="", version="", flush_logs_every_n_steps=50)
        self.keep_steps = keep_steps
        self._opened = False

    @property
    def experiment(self) -> Any:
        """Lightning's writer, filled with the rows that are kept."""
        if self._opened:
            return super().experiment
        self._opened = True
        rows = self._kept()
        writer = super().experiment
        if writer is not None and rows:  # in other ranks than 0 the writer is a placeholder
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
    """Events in save_dir/tensorboard; a resumed run hides older events of steps from keep_steps on."""
    purge: dict[str, Any] = {} if keep_steps is None else {"purge_step": keep_steps}
    return HyperparametersAtTheEnd(save_dir=save_dir, name="tensorboard", version="", default_hp_metric=False, **purge)


class HyperparametersAtTheEnd(TensorBoardLogger):
    """A TensorBoard logger whose HParams tab shows the run's choices, not all config keys; see `Dashboards`."""

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log hyperparameters only if they come with final metrics."""
        if metrics:
            super().log_hyperparams(params, metrics, step)


def named(usual: str) -> str:
    """A run's name on a dashboard: its choices and the seed in a sweep, else `usual`."""
    choices = sweep_choices()
    if not choices:
        return usual
    seed = choices.get("seed", usual.rpartition("-seed")[2] if "-seed" in usual else "")
    names = short_names([key for key in choices if key != "seed"])
    words = [f"{names[key]}={choices[key]}" for key in names]
    return " ".join([*words, *([f"seed={seed}"] if seed else [])])[:NAME_LENGTH]


def sweep_choices() -> dict[str, str]:
    """{key: value} that distinguishes this job from the others of its sweep; empty for a single run."""
    try:
        found = json.loads(os.environ.get(CHOICES_ENV, "{}"))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def choices_of_run(run_dir: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a run: the swept keys in a sweep, else the overrides of its command; and the seed."""
    chosen: dict[str, Any] = dict(sweep_choices())
    if not chosen:
        file = run_dir / ".hydra" / "overrides.yaml"
        given = yaml.safe_load(file.read_text()) if file.is_file() else None
        pairs = (str(text).lstrip("+~").partition("=")[::2] for text in given or [])
        chosen = {key: value for key, value in pairs if not key.startswith(NO_CHOICE)}
    typed = {key: yaml.safe_load(value) for key, value in (chosen | {"seed": str(config["seed"])}).items()}
    return {key: v if isinstance(v, int | float | str | bool) else str(chosen[key]) for key, v in typed.items()}


def mlflow_logger(
    *,
    save_dir: str,
    experiment_name: str,
    run_name: str,
    tracking_uri: str | None = None,
    keep_steps: int | None = None,
) -> MLFlowLogger:
    """An MLflow logger; jobs of a sweep share one store, so that MLflow lists and compares them.

    Args:
        save_dir: the run's folder. Its file mlflow_id holds the run's id, so that a resumed run keeps it.
        experiment_name: name in the store; each sweep is one experiment.
        run_name: name of a single run; jobs of a sweep are named by their choices and the seed.
        tracking_uri: address of the store; None for mlruns.db in the run's folder, or the sweep's folder in a sweep.
        keep_steps: not None if the run is resumed.
    """
    sweep, own = os.environ.get(SWEEP_ENV), Path(save_dir).absolute()
    folder = own.parent if sweep else own
    known = own / MLFLOW_ID
    logger = MLFlowLogger(
        experiment_name=sweep or experiment_name,
        run_name=named(run_name),
        tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlruns.db'}",
        run_id=known.read_text().strip() if keep_steps is not None and known.is_file() else None,
    )
    if first_process():  # other ranks do not log
        with (folder / ".mlruns.lock").open("w") as lock:  # two jobs that create the tables at once would fail
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_whole(known, str(logger.run_id).encode())
    return logger


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
    """A W&B logger that never prompts: offline unless WANDB_API_KEY is set or `offline` says otherwise.

    Jobs of a sweep form a group and are named by their choices and the seed. The file wandb_id in the run folder holds
    the run's id, so that a resumed run (with keep_steps) keeps it. Files are in save_dir/wandb; `wandb sync` in the run
    folder uploads them later.
    """
    if offline is None:
        offline = not os.environ.get("WANDB_API_KEY")
    os.environ.setdefault("WANDB_SILENT", "true")
    group = group or os.environ.get(SWEEP_ENV)
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        name=named(name)[:NAME_LENGTH],
        group=group,
        job_type="train",
        tags=list(tags),
        offline=offline,
        id=_wandb_id(Path(save_dir), new=keep_steps is None),
        resume="allow",
    )


def _wandb_id(folder: Path, new: bool) -> str:
    """The W&B id in a run folder; a new one if there is none or `new` is true."""
    file = folder / WANDB_ID
    if not new and file.is_file():
        return file.read_text().strip()
    made = uuid.uuid4().hex[:8]
    if first_process():  # other ranks do not log
        write_whole(file, made.encode())
    return made


class Dashboards(L.Callback):
    """Fills TensorBoard's HParams tab, and W&B's summary, tables and precision-recall curves, after the final test.

    Args:
        run_dir: the run's folder; its result.json holds the curves.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / "result.json"

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Send the final results to the loggers."""
        ours = detection(module)
        metrics = ours.results["test"]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                chosen = choices_of_run(self.path.parent, ours.config)
                totals = {f"hparam/{key}": value for key, value in metrics.items() if "/" not in key}
                logger.log_hyperparams(chosen, totals)
            elif isinstance(logger, WandbLogger):
                errors = read_facts(self.path).get("errors") or {}
                _tell_wandb(logger.experiment, ours.final_name, metrics, errors.get("pr_curves"))


def _tell_wandb(run: Any, name: str, metrics: Mapping[str, float], curves: Mapping[str, Any] | None) -> None:
    import wandb  # slow to import, and most runs do not need it

    run.summary.update({f"{name}/{key}": value for key, value in metrics.items()})
    rows = [[key[3:], value] for key, value in metrics.items() if key.startswith("ap/")]
    if rows:
        run.log({f"{name}/ap_by_class": wandb.Table(columns=["class", "AP"], data=rows)})
    if curves:
        names, at_half = list(curves["precision"]), [c[0] for c in curves["precision"].values()]
        recalls = [i / 100 for i in range(101)]
        chart = wandb.plot.line_series(recalls, at_half, keys=names, title="precision at IoU 0.5", xname="recall")
        run.log({f"{name}/precision_recall": chart})


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as text, since loggers accept only plain values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return found
