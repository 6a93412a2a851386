"""Loggers of a resumed run go on: no row twice, none lost, the same W&B run."""

from __future__ import annotations

import csv
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detlab.training.loggers import MetricsFile, _wandb_id, tensorboard_logger


def rows(folder: Path) -> list[tuple[int, str, str]]:
    with (folder / "metrics.csv").open(newline="") as lines:
        return [(int(r["step"]), r.get("a", ""), r.get("b", "")) for r in csv.DictReader(lines)]


def test_rows_before_the_step_stay_and_later_ones_are_written_again(tmp_path: Path) -> None:
    logger = MetricsFile(str(tmp_path))
    for step in range(5):
        logger.log_metrics({"a": step}, step=step)
        logger.save()
    again = MetricsFile(str(tmp_path), keep_steps=3)
    again.log_metrics({"a": 30, "b": 1}, step=3)
    again.save()
    assert rows(tmp_path) == [(0, "0", ""), (1, "1", ""), (2, "2", ""), (3, "30", "1")]


def test_a_run_that_is_not_resumed_starts_an_empty_file(tmp_path: Path) -> None:
    for value in (1, 2):
        logger = MetricsFile(str(tmp_path))
        logger.log_metrics({"a": value}, step=0)
        logger.save()
    assert rows(tmp_path) == [(0, "2", "")]


def test_events_of_later_steps_are_hidden(tmp_path: Path) -> None:
    for keep, steps in ((None, range(6)), (3, range(3, 8))):
        logger = tensorboard_logger(save_dir=str(tmp_path), keep_steps=keep)
        for step in steps:
            logger.log_metrics({"a": step + (0.5 if keep else 0)}, step=step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("a")
    assert [(e.step, e.value) for e in events] == [(0, 0), (1, 1), (2, 2), *((s, s + 0.5) for s in range(3, 8))]


def test_the_wandb_run_is_the_same_after_a_resume_and_another_one_otherwise(tmp_path: Path) -> None:
    first = _wandb_id(tmp_path, new=True)
    assert _wandb_id(tmp_path, new=False) == first
    second = _wandb_id(tmp_path, new=True)
    assert second != first
    assert _wandb_id(tmp_path, new=False) == second
