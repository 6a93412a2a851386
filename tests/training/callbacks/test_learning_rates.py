"""Learning rates in metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from detlab.training.callbacks import LearningRates


def test_under_accumulation_a_step_has_one_row(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, log_every_n_steps=1, logger=logger,
        callbacks=[LearningRates(logging_interval="step")], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(BoringModel(), DataLoader(torch.ones(6, 32), batch_size=1))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row["step"] for row in csv.DictReader(file) if row["lr-SGD"]]
    assert rows == ["0", "1", "2", "3", "4", "5"]
