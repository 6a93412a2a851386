"""Several processes: N with 1/N of the batch each equal one with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.equality_worker import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
FEW = ("faster_rcnn", "ssd")  # in the default run; the others take a minute more
OTHERS = tuple(family for family in FAMILIES if family not in FEW)


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(folder: Path, families: Sequence[str]) -> dict[str, Path]:
    """Families trained by one process, and by two under torchrun."""
    out = {name: folder / name for name in ("one", "two")}
    for path in out.values():
        path.mkdir()
    pair = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m"]
    for arguments in (
        ["tests.training.equality_worker", str(out["one"]), *families],
        [*pair, "tests.training.equality_worker", str(out["two"]), *families],
    ):
        process = start(arguments)
        text, _ = process.communicate(timeout=550)
        assert process.returncode == 0, text[-3000:]
    return out


@pytest.fixture(scope="module", params=[FEW, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["few", "others"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """{family: {one, two: what the worker wrote}}."""
    out = train(tmp_path_factory.mktemp("equality"), request.param)
    return {f: {n: torch.load(p / f"{f}.pt", weights_only=True) for n, p in out.items()} for f in request.param}


def test_weights_agree_after_five_steps_in_double_precision(trained: dict[str, dict[str, Any]]) -> None:
    for family, results in trained.items():
        one, two = (results[name]["double"]["state"] for name in ("one", "two"))
        assert one["backbone.mean"].dtype == torch.float64
        assert max(float((one[k] - two[k]).abs().max()) for k in one) <= 1e-9, family


def test_gradients_of_the_first_step_agree_in_single_precision(trained: dict[str, dict[str, Any]]) -> None:
    for family, results in trained.items():
        one, two = (results[name]["single"]["gradients"] for name in ("one", "two"))
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            assert gradient.dtype == torch.float32
            error = float((gradient - two[name]).norm())
            assert error <= 1e-5 * float(gradient.norm()) + 1e-9, (family, name)


def test_the_watch_tells_how_a_process_ended() -> None:
    from detlab.training.processes import Watch

    watch = Watch()
    fine, killed = (subprocess.Popen([sys.executable, "-c", code]) for code in ("", "import time; time.sleep(60)"))
    fine.wait()
    watch._processes = [fine, killed]
    assert watch.dead() is None
    killed.kill()
    killed.wait()
    assert watch.dead() == f"local rank 2 (process {killed.pid}) was killed by signal 9"
    watch.expected = True
    assert watch.dead() is None
