"""Pictures reach the loggers; a report file is written whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detlab.training.callbacks.results import show_picture


def test_a_plot_reaches_tensorboard_and_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(WandbLogger, "experiment", SimpleNamespace(log=sent.append))
    board = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    loggers = [board, WandbLogger(save_dir=str(tmp_path), offline=True), CSVLogger(str(tmp_path))]
    picture = np.zeros((8, 12, 3), np.uint8)
    show_picture(SimpleNamespace(loggers=loggers, global_step=3), "test/errors", picture)
    board.experiment.flush()
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0}).Reload()
    assert events.Images("test/errors")[0].step == 3
    assert [set(row) for row in sent] == [{"test/errors", "trainer/global_step"}]
    assert sent[0]["test/errors"].image.size == (12, 8)
