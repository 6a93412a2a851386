"""Tiny staged runs, shared by the tests of stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from detlab.config.compose import compose_config, plain_config
from detlab.training.fit import train

TINY = [
    "debug=fast",
    "logger=none",
    "callbacks.pictures=null",
    "callbacks.progress=null",
    "callbacks.lr_monitor=null",
    "data.cache_dir=null",
    "trainer.precision=32-true",
    "trainer.num_sanity_val_steps=0",
    "trainer.limit_train_batches=1",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 4, val: 2, test: 2}",
]


def config_of(folder: Path, *overrides: str) -> dict[str, Any]:
    fixed = ["name=test", f"paths.run_dir={folder}"]
    return plain_config(compose_config("train", [*fixed, *TINY, *overrides]))


def run(folder: Path, *overrides: str) -> Path:
    train(config_of(folder, *overrides))
    return folder


def interrupted(finished: Path, folder: Path, *lost: str) -> Path:
    """A copy of a finished run as one that was stopped before these parts of it were there."""
    shutil.copytree(finished, folder)
    for name in lost:
        shutil.rmtree(folder / name)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "stopped"}))
    return folder


def tool(name: str, out: Path, *overrides: str) -> dict[str, Any]:
    return plain_config(compose_config(name, [f"paths.run_dir={out}", *overrides]))
