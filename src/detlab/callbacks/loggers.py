"""Loggers that need more than a class name in a config, and what dashboards get at the end of a run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from detlab.files import read_json

NAME_LENGTH = 128  # of W&B's run names
SWEEP_ENV = "DETLAB_SWEEP"  # the launcher tells a job the name of its sweep


def wandb_logger(
    *,
    save_dir: str,
    project: str,
    name: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    offline: bool | None = None,
) -> WandbLogger:
    """A W&B logger that never asks: offline unless WANDB_API_KEY is set or `offline` says otherwise.

    Jobs of a sweep are grouped by it. The run's id lies in wandb_id in the run folder, so that a run that goes on is
    the same run there. Files lie in save_dir/wandb; `wandb sync` in the run folder sends them later.
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
        id=_run_id(Path(save_dir) / "wandb_id"),
        resume="allow",
    )


def _run_id(path: Path) -> str:
    """The id of the run in this folder, made at its first start."""
    if path.is_file():
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made := uuid.uuid4().hex[:12])
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
        metrics = module.results["test"]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                chosen = {
                    key: v for key, v in flat(module.config).items() if not key.startswith(("paths.", "callbacks."))
                }
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
