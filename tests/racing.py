"""Starts several `detlab train` at the same moment that want one folder, and looks whether any file holds two of them.

    python -m tests.racing OUT [races=50] [commands=2] [real=0] [seed=0]

Every command is a process of its own, forked from one that has imported the libraries; all wait for one moment and then
run the whole command, Hydra included. With real=0 the training is a stand-in that writes a run's files slowly, with its
command's number in each; with real=1 it is a training of two steps. Prints one JSON line.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml

from detlab.system.files import write_json
from tests.killing import OVERRIDES, wait

FILES = (".hydra/overrides.yaml", "status.json", "result.json", "checkpoints/last.ckpt")
KINDS = ("same second", "same folder", "resume twice", "go on twice")
MOMENT = mmap.mmap(-1, 8)  # when all start, shared with forked processes
OTHER = ("name=", "trainer.max_epochs", "callbacks=", "model/backbone=", "data.batch_size=")
TINY = [o for o in OVERRIDES if not o.startswith(OTHER)]
TINY += ["model/backbone=resnet18", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks=default"]
TINY += ["callbacks.pictures=null", "callbacks.results.errors=false", "data.batch_size=2"]


class Writing:
    """Instead of a training: writes a run's files again and again, each with the seed, which tells commands apart."""

    def __call__(self, config: dict[str, Any]) -> float:
        folder, mark = Path(config["paths"]["run_dir"]), config["seed"]
        facts = {"seed": mark, "process": os.getpid(), "config_hash": config["config_hash"]}
        (folder / "checkpoints").mkdir(exist_ok=True)
        for _ in range(20):
            write_json(folder / "status.json", facts | {"state": "running"})
            (folder / "checkpoints" / "last.ckpt").write_text(json.dumps(facts))
            with (folder / "metrics.csv").open("a") as rows:
                rows.write(f"{mark},{os.getpid()}\n")
            time.sleep(0.05)
        (folder / "result.json").write_text(json.dumps(facts))
        write_json(folder / "status.json", facts | {"state": "finished", "score": mark})
        return float(mark)


def main(out: Path, races: int = 50, commands: int = 2, real: int = 0, seed: int = 0) -> dict[str, Any]:
    """Race after race, in the kinds in turn; stops at the first mixed folder."""
    draw = random.Random(seed)
    begun, ends, wrong = time.monotonic(), Counter(), []
    contested = 0
    for number in range(races):
        kind = KINDS[number % len(KINDS)]
        place = out / f"{number}-{kind.replace(' ', '-')}"
        codes = race(place, kind, commands, bool(real), draw.random())
        ends.update(f"{kind}: {_said(place, i, code)}" for i, code in enumerate(codes))
        contested += len(list(place.glob("*/*-2"))) > 0 or any(code == 2 for code in codes)
        wrong = judge(place, kind, codes)
        if wrong:
            break
    took = round((time.monotonic() - begun) / (number + 1), 2)
    return {"races": number + 1, "commands": commands, "contested": contested, "ends": ends, "wrong": wrong, "s": took}


def race(place: Path, kind: str, commands: int, real: bool, offset: float) -> list[int]:
    """Exit statuses of commands that start at once; the default folder is below `place`."""
    place.mkdir(parents=True)
    training = [] if real else ["training._target_=tests.racing.Writing"]
    folder = [] if kind in ("same second", "go on twice") else [f"hydra.run.dir={place / 'day' / 'given'}"]
    resume = ["resume=true"] if kind in ("resume twice", "go on twice") else []
    same = bool(resume)  # a run is gone on with by its own command
    if kind == "go on twice":
        _leave_unfinished(place, [*TINY, *training, "seed=0"])
    struct.pack_into("d", MOMENT, 0, 0.0)
    pids = []
    for i in range(commands):
        pid = os.fork()
        if pid == 0:
            _child(place, i, [*TINY, *training, f"seed={0 if same else i}", *folder, *resume])
        pids.append(pid)
    struct.pack_into("d", MOMENT, 0, time.monotonic() + 0.1 + 0.2 * offset)
    return wait(pids)


def judge(place: Path, kind: str, codes: list[int]) -> list[str]:
    """What is not as it should be: a folder of two commands, or a number of runs that the kind does not allow."""
    wrong = []
    folders = [f for f in place.glob("*/*") if (f / FILES[0]).is_file()]
    for folder in folders:
        marks = Counter(key for key, _ in marks_of(folder))
        if marks != {"seed": 1, "process": 1}:
            wrong.append(f"{folder} is mixed: {sorted(marks_of(folder), key=str)}")
    ran = [code for code in codes if code == 0]
    if any(code not in (0, 2) for code in codes):
        wrong.append(f"{place}: exit statuses {codes}")
    if kind == "same second" and (len(folders), len(ran)) != (len(codes), len(codes)):
        wrong.append(f"{place}: {len(folders)} folders, exit statuses {codes}")
    if kind != "same second" and (len(folders) != 1 or not ran):
        wrong.append(f"{place}: {len(folders)} folders, exit statuses {codes}")
    if kind == "same folder" and len(ran) != 1:
        wrong.append(f"{place}: exit statuses {codes}")
    return wrong


def marks_of(folder: Path) -> set[tuple[str, Any]]:
    """Which seeds and processes its files are of; one of each where nothing is mixed."""
    found: set[tuple[str, Any]] = {("seed", _seed(yaml.safe_load((folder / FILES[0]).read_text())))}
    for name in FILES[1:]:
        facts = _read(folder / name)
        found |= {(key, facts[key]) for key in ("seed", "process") if key in facts}
    rows = (folder / "metrics.csv").read_text().splitlines()
    if "step" in rows[0].split(","):  # a real training's: each step stands there once with its loss
        place, loss = (rows[0].split(",").index(name) for name in ("step", "train/loss"))
        steps = Counter(cells[place] for cells in (row.split(",") for row in rows[1:]) if cells[loss])
        return found | {("process", f"twice at step {step}") for step, times in steps.items() if times > 1}
    for row in rows:
        seed, process = row.split(",")
        found |= {("seed", int(seed)), ("process", int(process))}
    return found


def _seed(words: list[str]) -> int:
    return next(int(word.removeprefix("seed=")) for word in words if word.startswith("seed="))


def _read(path: Path) -> dict[str, Any]:
    """What a file says of who wrote it."""
    if path.suffix != ".ckpt":
        return json.loads(path.read_text())
    try:
        return {"seed": torch.load(path, weights_only=True)["detlab"]["config"]["seed"]}
    except pickle.UnpicklingError:
        return json.loads(path.read_text())


def _leave_unfinished(place: Path, words: list[str]) -> None:
    """A folder of that config which a killed process left."""
    from detlab.config.compose import compose_config, config_hash, plain_config

    folder = place / "day" / "left"
    folder.mkdir(parents=True)
    config = plain_config(compose_config("train", [*words, "name=retinanet", "paths.run_dir=RUN"]))
    facts = {"state": "running", "config_hash": config_hash(config), "process": os.getpid()}
    (folder / "status.json").write_text(json.dumps(facts))


def _child(place: Path, number: int, words: list[str]) -> None:
    """Run the command at the moment and end this process."""
    status = 1
    try:
        log = os.open(place / f"log-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["DETLAB_OUTPUTS"] = str(place)
        sys.argv = ["train", *words]
        from detlab.commands.app import run_app
        from detlab.commands.train import main as command

        while not 0 < struct.unpack_from("d", MOMENT)[0] < time.monotonic():
            time.sleep(0.0005)
        run_app(command, "train")
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _said(place: Path, number: int, code: int) -> str:
    """How a command ended, in a word."""
    text = (place / f"log-{number}").read_text()
    words = (
        "is held by",
        "holds a finished run",
        "holds an unfinished run",
        "is finished: nothing",
        "found no unfinished",
    )
    return next((word for word in words if word in text), "ran" if code == 0 else f"exit status {code}")


if __name__ == "__main__":
    import detlab.commands.train
    import detlab.training.fit  # noqa: F401 - before the forks
    from tests import racing  # the module whose class the runs name

    options = dict(word.split("=") for word in sys.argv[2:])
    result = racing.main(Path(sys.argv[1]), **{k: int(v) for k, v in options.items()})
    print(json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)
