"""Loggers of a resumed run go on: no row twice, none lost, the same W&B run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import detlab.training.loggers
from detlab.training.loggers import MetricsFile, _wandb_id, choices_of_run, mlflow_logger, named, tensorboard_logger


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


def test_a_job_is_named_by_what_is_swept_and_its_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = "retinanet-a=1,b=2-seed7"
    assert named(usual) == usual
    monkeypatch.setenv("DETLAB_CHOICES", json.dumps({"model/neck": "fpn", "optim.lr": "0.1", "seed": "3"}))
    assert named(usual) == "neck=fpn lr=0.1 seed=3"
    assert choices_of_run(tmp_path, {"seed": 3}) == {"model/neck": "fpn", "optim.lr": 0.1, "seed": 3}
    monkeypatch.setenv("DETLAB_CHOICES", json.dumps({"model/neck": "fpn"}))
    assert named(usual) == "neck=fpn seed=7"


def test_choices_of_a_run_of_its_own_are_its_overrides(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    given = "- model/neck=fpn\n- logger=many\n- threads=1\n- data.sizes=[14,30]\n- optim.lr=0.1\n"
    (tmp_path / ".hydra" / "overrides.yaml").write_text(given)
    chosen = choices_of_run(tmp_path, {"seed": 0})
    assert chosen == {"model/neck": "fpn", "data.sizes": "[14,30]", "optim.lr": 0.1, "seed": 0}


def test_jobs_of_a_sweep_share_one_store_of_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow itself is no dependency; what its logger is told decides where and how runs are kept."""
    told: list[dict[str, Any]] = []

    class Logger:
        run_id = "1"

        def __init__(self, **options: Any) -> None:
            told.append(options)

    monkeypatch.setattr(detlab.training.loggers, "MLFlowLogger", Logger)
    for number in "01":
        (tmp_path / number).mkdir()
        mlflow_logger(save_dir=str(tmp_path / number), experiment_name="detlab", run_name="a-seed0")
    monkeypatch.setenv("DETLAB_SWEEP", "neck-1a2b3c")
    monkeypatch.setenv("DETLAB_CHOICES", json.dumps({"model/neck": "fpn", "seed": "0"}))
    for number in "01":
        mlflow_logger(save_dir=str(tmp_path / number), experiment_name="detlab", run_name="a-seed0")
    stores = [options["tracking_uri"] for options in told]
    assert stores[:2] == [f"sqlite:///{tmp_path / number / 'mlruns.db'}" for number in "01"]
    assert stores[2:] == [f"sqlite:///{tmp_path / 'mlruns.db'}"] * 2
    assert told[2]["experiment_name"] == "neck-1a2b3c"
    assert told[2]["run_name"] == "neck=fpn seed=0"
    mlflow_logger(save_dir=str(tmp_path), experiment_name="detlab", run_name="a", tracking_uri="http://host")
    assert (told[-1]["tracking_uri"], told[-1]["run_id"]) == ("http://host", None)
    mlflow_logger(save_dir=str(tmp_path / "1"), experiment_name="detlab", run_name="a", keep_steps=3)
    assert told[-1]["run_id"] == "1"  # the run that was resumed
