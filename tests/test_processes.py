"""Several processes: N with 1/N of the batch each equal one with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.equality_worker import FAMILIES

ROOT = Path(__file__).resolve().parents[1]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family trained by one process and by two under torchrun."""
    out = {name: tmp_path_factory.mktemp(name) for name in ("one", "two")}
    worker = ["tests.equality_worker", str(out["one"]), *FAMILIES]
    pair = ["torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d"]
    pair += ["--rdzv-endpoint=localhost:0", "-m", "tests.equality_worker", str(out["two"]), *FAMILIES]
    for arguments in (worker, pair):
        process = start(arguments)
        text, _ = process.communicate(timeout=500)
        assert process.returncode == 0, text[-3000:]
    return out


def results(trained: dict[str, Path], family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    one, two = (torch.load(folder / f"{family}.pt", weights_only=True) for folder in trained.values())
    return one, two


@pytest.mark.parametrize("family", list(FAMILIES))
def test_weights_agree_after_five_steps_in_double_precision(trained: dict[str, Path], family: str) -> None:
    one, two = (r["double"]["state"] for r in results(trained, family))
    assert one["backbone.mean"].dtype == torch.float64
    worst = max(float((one[k] - two[k]).abs().max()) for k in one)
    assert worst <= 1e-9


@pytest.mark.parametrize("family", list(FAMILIES))
def test_gradients_of_the_first_step_agree_in_single_precision(trained: dict[str, Path], family: str) -> None:
    one, two = (r["single"]["gradients"] for r in results(trained, family))
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        assert gradient.dtype == torch.float32
        error = float((gradient - two[name]).norm())
        assert error <= 1e-5 * float(gradient.norm()) + 1e-9, name
