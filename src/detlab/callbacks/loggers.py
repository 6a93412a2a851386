"""Loggers that need more than a class name in a config."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lightning.pytorch.loggers import WandbLogger


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

    Files lie in save_dir/wandb; `wandb sync` in the run folder sends them later.
    """
    if offline is None:
        offline = not os.environ.get("WANDB_API_KEY")
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(save_dir=save_dir, project=project, name=name, group=group, tags=list(tags), offline=offline)
