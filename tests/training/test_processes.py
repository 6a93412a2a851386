"""Several processes: N with 1/N of the batch each equal one with the whole batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from detlab.errors import ConfigError
from detlab.model.criterion import share_of_processes
from detlab.training import fit, processes
from detlab.training.batch_losses import BatchLosses
from detlab.training.callbacks.status import forget_words, leave_words, words_of
from detlab.training.processes import DDP, Watch, check_alone, process_state
from tests.training.equality_worker import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
FEW = ("ssd",)  # in the default run; the others take two minutes more
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


def train(folder: Path, families: Sequence[str], several: int = 2) -> dict[str, Path]:
    """Families trained by one process, and by several under torchrun."""
    out = {name: folder / name for name in ("one", "two")}
    for path in out.values():
        path.mkdir()
    pair = [
        "torch.distributed.run",
        f"--nproc-per-node={several}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        "-m",
    ]
    for arguments in (
        ["tests.training.equality_worker", str(out["one"]), *families],
        [*pair, "tests.training.equality_worker", str(out["two"]), *families],
    ):
        process = start(arguments, IMAGES_PER_STEP=str(2 * several))
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


def test_logged_losses_are_of_all_processes_and_of_real_images(trained: dict[str, dict[str, Any]]) -> None:
    """Two processes share five images in three batches: one batch is judged twice, and counts once."""
    for family, results in trained.items():
        one, two = (results[name]["judged"]["logged"] for name in ("one", "two"))
        assert {"train/loss", "val/loss", "val/loss_cls"} <= {n.replace("rpn/", "") for n in one}, family
        assert two == pytest.approx(one, rel=1e-6), family  # Lightning keeps what is logged in float32


@pytest.mark.slow
def test_three_processes_agree_as_two_do(tmp_path: Path) -> None:
    """A third of a count is no float32 number."""
    out = train(tmp_path, ["retinanet", "faster_rcnn"], several=3)
    for family in ("retinanet", "faster_rcnn"):
        one, three = (torch.load(p / f"{family}.pt", weights_only=True) for p in out.values())
        states = one["double"]["state"], three["double"]["state"]
        assert max(float((states[0][k] - states[1][k]).abs().max()) for k in states[0]) <= 1e-13
        assert three["judged"]["logged"] == pytest.approx(one["judged"]["logged"], rel=1e-6)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_the_watch_tells_how_a_process_ended() -> None:
    watch = Watch()
    fine, killed = sleeper(), sleeper()
    watch._processes = [fine, killed]
    assert watch.dead() is None
    killed.kill()
    killed.wait()
    assert watch.dead() == f"local rank 2 (process {killed.pid}) was killed by signal 9"
    watch.expected = True
    assert watch.dead() is None
    fine.kill()
    fine.wait()


def test_a_rank_that_ends_well_in_the_middle_of_a_run_is_dead_too() -> None:
    watch = Watch()
    watch._processes = [subprocess.Popen([sys.executable, "-c", ""])]
    watch._processes[0].wait()
    pid = watch._processes[0].pid
    assert watch.dead() == f"local rank 1 (process {pid}) ended with exit status 0 in the middle of the run"
    watch.expected = True
    assert watch.dead() is None


def test_rank_0_ends_the_ranks_it_started_and_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FAREWELL_S", 0.3)
    watch = Watch()
    done, hung = subprocess.Popen([sys.executable, "-c", ""]), sleeper()
    os.kill(hung.pid, signal.SIGSTOP)  # as a rank that waits for ever
    watch._processes = [done, hung]
    said = f"local rank 2 (process {hung.pid}) did not end and was killed"
    assert watch.end_children() == said
    assert hung.poll() == -signal.SIGKILL
    assert watch.end_children() == said  # also where an outer part of the run asks again
    monkeypatch.setattr(fit, "WATCH", watch)
    assert fit.ending(ValueError("own")) == (
        "failed", f"local rank 1 (process {done.pid}) {END}; ValueError: own; {said}"
    )  # fmt: skip


END = "ended with exit status 0 in the middle of the run"


def test_a_stopped_and_a_dead_process_are_told_apart() -> None:
    process = sleeper()
    assert process_state(process.pid) == "still runs"
    os.kill(process.pid, signal.SIGSTOP)
    end = time.monotonic() + 5
    while process_state(process.pid) != "is stopped":
        assert time.monotonic() < end
    process.kill()
    process.wait()
    assert process_state(process.pid) == "is gone"


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_count_is_not_rounded_by_the_number_of_processes(
    world: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2**25 + 1  # no float32 is this number

    def add_up(tensor: torch.Tensor) -> None:
        assert tensor.dtype == torch.int64
        tensor.mul_(world)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(distributed, "all_reduce", add_up)
    share = share_of_processes(torch.tensor(count), dtype)
    assert share.dtype == dtype
    assert float(share) == pytest.approx(count, rel=1e-15 if dtype == torch.float64 else 1e-7)
    with torch.no_grad():  # an evaluation's batch counts for itself, and waits for nobody
        monkeypatch.setattr(distributed, "all_reduce", None)
        assert share_of_processes(torch.tensor(3), dtype).item() == 3


def test_the_losses_of_an_evaluation_are_those_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images, two processes, batches of two: the second process repeats the first batch to come out even."""
    batches = [([1, 2], 1.0), ([3, 4], 2.0), ([5], 6.0)]
    shares = [BatchLosses(), BatchLosses()]
    for number, (ids, value) in enumerate([*batches, batches[0]]):
        shares[number % 2].add({"val/loss": torch.tensor(value)}, torch.tensor(ids))
    told = [(losses._names, losses._own()) for losses in shares]
    monkeypatch.setattr("detlab.training.batch_losses.of_all", lambda _: told)
    assert [losses.means() for losses in shares] == [{"val/loss": (2 * 1.0 + 2 * 2.0 + 6.0) / 5}] * 2
    monkeypatch.undo()
    assert BatchLosses().means() == {}


def test_processes_of_a_launcher_need_a_trainer_that_takes_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    check_alone(1)
    monkeypatch.setenv("RANK", "1")
    check_alone(2)
    with pytest.raises(ConfigError, match="as process 1 of several, .* use trainer=ddp, trainer=ddp_cpu or"):
        check_alone(1)
    monkeypatch.setenv("RANK", "0")
    check_alone(1)  # srun's batch step
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="as process 0 of several"):
        check_alone(1)


def test_the_bounds_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for the start, another for every collective operation after it."""
    strategy = DDP(timeout_s=7, start_timeout_s=90)
    assert strategy._timeout.total_seconds() == 90
    seen = []
    monkeypatch.setattr(DDPStrategy, "setup_environment", lambda self: seen.append(self._timeout.total_seconds()))
    monkeypatch.setattr(distributed, "set_timeout", lambda patience: seen.append(patience.total_seconds()))
    strategy.setup_environment()
    assert seen == [90, 7]
    for name in ("timeout_s", "start_timeout_s"):
        with pytest.raises(ConfigError, match=f"trainer.strategy.{name}=0 must be a positive number"):
            DDP(**{name: 0})


def test_the_first_words_of_a_rank_stay(tmp_path: Path) -> None:
    leave_words(tmp_path, 1, "ValueError: the cause")
    leave_words(tmp_path, 1, "RuntimeError: its consequence")
    assert words_of(tmp_path) == {1: "ValueError: the cause"}
    forget_words(tmp_path)
    assert words_of(tmp_path) == {}
