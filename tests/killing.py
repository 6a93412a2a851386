"""Kills runs with signal 9 at chosen places, resumes them, and compares them with a run that nobody touched.

    python -m tests.killing OUT [kills=20] [processes=1] [seed=0] [recipe=retinanet]
    python -m tests.killing OUT faults      what two processes do when one hangs, dies, fails or is asked to stop
    python -m tests.killing OUT more-faults when another one does, comes late, or was started otherwise

Every run is a process of its own, forked from one that has imported the libraries. Prints one JSON line with what was
killed where and whether weights, optimiser, average, metrics and log rows came out the same to the bit.
"""

from __future__ import annotations

import csv
import itertools
import json
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch

from detlab.config.compose import compose_config, plain_config
from detlab.training.callbacks import CheckpointFiles
from detlab.training.fit import train
from detlab.training.signals import Stopped

PLACES = ("start", "step", "checkpoint", "evaluation", "test")
PLACE = mmap.mmap(-1, 1)  # shared with forked processes: where rank 0 is
FEW = 4  # faults of the default test run
LIMIT_S = 300.0  # no run takes longer
OVERRIDES = [
    "model=retinanet",
    "model.neck.width=16",
    "model.head.width=16",
    "model.head.depth=1",
    "model.detect.score_threshold=0.0",  # so that metrics are not all zero
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 12, val: 4, test: 2}",
    "data.num_workers=0",
    "data.cache_dir=null",
    "augment=ssd",
    "callbacks=ema",
    "callbacks.progress=null",
    "callbacks.pictures=null",
    "callbacks.checkpoint.every_n_steps=1",
    "logger=csv",
    "lr_schedule.warmup_steps=2",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "threads=1",
    "name=killed",
]
RECIPES = {  # what is trained: the choices of OVERRIDES that give way, and those that take their place
    "retinanet": ((), ()),
    "accumulation": ((), ("trainer.accumulate_grad_batches=2",)),
    "ssd": (("model=", "model.neck.", "model.head."), ("model=ssd",)),
    "faster_rcnn": (("model=", "model.head.depth="), ("model=faster_rcnn", "model.sampler.size=16")),
    "yolo": (  # the warm start ends in the second epoch; every step draws a canvas size
        ("model=", "model.neck.", "model.head."),
        (
            "model=yolov2",
            "model.neck.width=16",
            "model.head.width=16",
            "model.criterion.prior_images=20",
            "multiscale=small",
            "multiscale.factors=[1.0, 1.5, 2.0]",
            "multiscale.every=1",
        ),
    ),
    "alternating": (
        ("model=", "model.head.depth=", "trainer.max_epochs="),
        ("model=faster_rcnn", "model.sampler.size=16", "training=alternating", "trainer.max_epochs=1"),
    ),
    "svm": (
        ("model=", "model.head.", "model.neck.", "trainer.max_epochs=", "augment="),
        (
            "model=sppnet",
            "model.head.width=32",
            "model.sampler.size=16",
            "data.proposals=grid",
            "training=svm",
            "data.proposal_count=60",
            "training.dtype=float32",
            "trainer.max_epochs=1",
            "model/detect=rcnn",
        ),
    ),
}


def overrides_of(recipe: str) -> list[str]:
    """The overrides of a recipe's run."""
    dropped, added = RECIPES[recipe]
    return [*(word for word in OVERRIDES if not word.startswith(tuple(dropped) or " ")), *added]


GIVEN: list[L.Callback | None] = [None]  # a test's own callback, for runs in its process


def given() -> L.Callback | None:
    """That callback, for a config to name."""
    return GIVEN[0]


class Places(L.Callback):
    """Tells the killer where the run is."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        _at(trainer, "step")

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        _at(trainer, "evaluation")

    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        _at(trainer, "test")


def _at(trainer: L.Trainer, place: str) -> None:
    if trainer.is_global_zero and not trainer.sanity_checking:
        PLACE[0] = PLACES.index(place)


class TellingFiles(CheckpointFiles):
    """Checkpoint files that say when they are being written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        PLACE[0] = PLACES.index("checkpoint")
        super().save_checkpoint(checkpoint, path, storage_options)
        PLACE[0] = PLACES.index("step")


def config_of(
    folder: Path, processes: int = 1, resume: bool = False, *more: str, recipe: str = "retinanet"
) -> dict[str, Any]:
    """The same run in any folder."""
    several = ["trainer=ddp_cpu", f"trainer.devices={processes}"] if processes > 1 else ["trainer=cpu"]
    batch = [f"data.batch_size={4 // processes}", f"paths.run_dir={folder}", f"resume={resume}"]
    config = plain_config(compose_config("train", [*overrides_of(recipe), *several, *batch, *more]))
    config["model"]["backbone"] = {"_target_": "tests.tiny.Tiny"}
    config["callbacks"]["places"] = {"_target_": "tests.killing.Places"}
    return config


def start(
    folder: Path,
    processes: int,
    resume: bool,
    more: Sequence[Sequence[str]] = ((), ()),
    recipe: str = "retinanet",
) -> list[int]:
    """Fork the processes of a run; `more` overrides for each rank."""
    PLACE[0] = 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            _child(folder, processes, resume, [*more[rank], f"recipe={recipe}"], rank, port)
        pids.append(pid)
    return pids


def _child(folder: Path, processes: int, resume: bool, more: Sequence[str], rank: int, port: int) -> None:
    """Train and end this process."""
    status = 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / f"log-rank{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if processes > 1:
            os.environ |= {"TORCHELASTIC_RUN_ID": "kill", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
            os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            from lightning.pytorch.utilities import rank_zero_only

            rank_zero_only.rank = rank
        import detlab.training.build

        detlab.training.build.CheckpointFiles = TellingFiles
        own = dict(word.split("=", 1) for word in more if word.startswith(("wait=", "recipe=")))
        time.sleep(float(own.get("wait", 0)))
        given = [word for word in more if not word.startswith(("wait=", "recipe="))]
        train(config_of(folder, processes, resume, *given, recipe=own["recipe"]))
        status = 0
    except Stopped as stop:
        status = 128 + stop.signal
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pids: list[int], limit: float = LIMIT_S) -> list[int]:
    """Exit statuses; a process that takes longer than the limit is an error."""
    end = time.monotonic() + limit
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        for pid in pids:
            if pid not in statuses and (found := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[pid] = os.waitstatus_to_exitcode(found[1])
        if time.monotonic() > end:
            for pid in pids:
                if pid not in statuses:
                    os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"a process did not end within {limit} s")
        time.sleep(0.005)
    return [statuses[pid] for pid in pids]


def kill_at(pids: list[int], place: str, delay: float, number: int = signal.SIGKILL) -> bool:
    """Send a signal some time after the run has reached a place; False where it ended before."""
    wanted, end = PLACES.index(place), time.monotonic() + LIMIT_S
    while PLACE[0] != wanted and time.monotonic() < end:
        if os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    if os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return False
    for pid in pids:
        os.kill(pid, number)
    return True


def outcome(folder: Path) -> dict[str, Any]:
    """All of a run, and of its stages, that must be the same: tensors, metrics, log rows (but for times)."""
    files = sorted(file.relative_to(folder) for file in folder.rglob("last.ckpt"))
    assert files, f"{folder} has no last.ckpt"
    found: dict[str, Any] = {str(file): _tensors(folder / file) for file in files}
    for log in sorted(folder.rglob("metrics.csv")):
        found[str(log.relative_to(folder))] = _rows(log)
    return found | {"metrics": json.loads((folder / "result.json").read_text())}


def _tensors(file: Path) -> dict[str, Any]:
    content = torch.load(file, weights_only=True)
    kept = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    return {key: content[key] for key in kept if key in content}


def _rows(file: Path) -> dict[str, dict[str, list[str]]]:
    """Every value that was logged, by step and name; accumulated batches share a step."""
    rows: dict[str, dict[str, list[str]]] = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            own = rows.setdefault(row["step"], {})
            for key, value in row.items():
                if value and not key.startswith("time/") and key not in ("epoch", "step"):
                    own.setdefault(key, []).append(value)
    return rows


def differences(one: Any, two: Any, path: str = "") -> list[str]:
    """Where two nested values are not the same to the bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return [f"{path}: keys {sorted(map(str, one.keys() ^ two.keys()))[:5]}"]
        return [d for k in one for d in differences(one[k], two[k], f"{path}/{k}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            return [f"{path}: {len(one)} and {len(two)} entries"]
        return [d for i, (a, b) in enumerate(zip(one, two, strict=True)) for d in differences(a, b, f"{path}/{i}")]
    same = torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    return [] if same else [path]


def main(out: Path, kills: int = 20, processes: int = 1, seed: int = 0, recipe: str = "retinanet") -> dict[str, Any]:
    """Kill until so many kills are done and every run begun has come to its end."""
    draw = random.Random(seed)
    begun = time.monotonic()
    assert wait(start(out / "whole", processes, resume=False, recipe=recipe)) == [0] * processes, out / "whole"
    whole_s = time.monotonic() - begun
    expected = outcome(out / "whole")
    done: Counter[str] = Counter()
    places = itertools.cycle(PLACES)
    runs, wrong = 0, []
    while sum(done.values()) < kills:
        runs += 1
        folder = out / f"killed-{runs}"
        while True:
            pids = start(folder, processes, resume=True, recipe=recipe)
            place = next(places)
            if sum(done.values()) < kills and kill_at(pids, place, draw.expovariate(1 / 0.02)):
                done[place] += 1
                wait(pids)
                continue
            statuses = wait(pids)
            if any(statuses):
                wrong.append(f"{folder.name}: exit statuses {statuses}")
            break
        wrong += [f"{folder.name}{d}" for d in differences(expected, outcome(folder))[:5]]
        if wrong:
            break
    return {"kills": dict(done), "runs": runs, "differences": wrong, "one whole run took s": round(whole_s, 1)}


class Raising(L.Callback):
    """Fails in mid-run, in one rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 2:
            raise ValueError("broken on purpose")


def faults_of_ranks(out: Path, few: bool) -> dict[str, Any]:
    """What two processes do when one is killed, stopped, slow, broken, started otherwise or asked to stop: a part."""
    patience = ["trainer.strategy.timeout_s=4"]
    broken = ["+callbacks.raising={_target_: tests.killing.Raising, rank: 1}"]

    def fault(name: str, number: int = 0, to: int = 1, more: Sequence[Sequence[str]] = ((), ())) -> dict[str, Any]:
        """A run of two, with a signal to a rank at a step."""
        pids = start(out / name, 2, False, more)
        if number:
            kill_at(pids[:1], "step", 0.01, 0)
            os.kill(pids[to], number)
        begun = time.monotonic()
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, pids[1 - to], os.WEXITED | os.WNOWAIT)
            os.kill(pids[to], signal.SIGKILL)
        statuses, took = wait(pids, 120), time.monotonic() - begun
        file = out / name / "status.json"
        told = json.loads(file.read_text()) if file.is_file() else {}
        logs = [(out / name / f"log-rank{rank}").read_text() for rank in range(2)]
        return {"statuses": statuses, "s": took, "state": told.get("state"), "reason": told.get("reason"), "logs": logs}

    faults: dict[str, dict[str, Any]] = {
        "hung": {"number": signal.SIGSTOP, "more": (patience, patience)},
        "first dead": {"number": signal.SIGKILL, "to": 0},
        "broken": {"more": (broken, broken)},
        "asked to stop": {"number": signal.SIGTERM},
        "dead": {"number": signal.SIGKILL},
        "first stopped": {"number": signal.SIGSTOP, "to": 0, "more": (patience, patience)},
        "slow start": {"more": (patience, [*patience, "wait=6"])},
        "other config": {"more": (["seed=0"], ["seed=1"])},
    }
    names = list(faults)[:FEW] if few else list(faults)[FEW:]
    return {name: fault(name.replace(" ", "-"), **faults[name]) for name in names}


if __name__ == "__main__":
    from tests import killing  # the module that the runs import, with the same PLACE

    if sys.argv[2] in ("faults", "more-faults"):
        print(json.dumps(killing.faults_of_ranks(Path(sys.argv[1]), few=sys.argv[2] == "faults")))
        sys.exit(0)
    options = dict(word.split("=") for word in sys.argv[2:])
    recipe = options.pop("recipe", "retinanet")
    result = killing.main(Path(sys.argv[1]), recipe=recipe, **{k: int(v) for k, v in options.items()})
    print(json.dumps(result))
    sys.exit(1 if result["differences"] else 0)
