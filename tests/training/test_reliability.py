"""What a run does when something goes wrong: nothing is lost, status.json says what happened, and resume goes on.

Kills with signal 9 at any moment are in tests/killing.py, which the slow tests here start.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import pytest
import torch

from detlab.config.compose import compose_config, config_hash, plain_config
from detlab.detectors import RetinaNet
from detlab.errors import ConfigError
from detlab.runs.checkpoints import read_content
from detlab.runs.replay import load_dumped_batch, replay
from detlab.runs.resuming import find_run, start_of
from detlab.system import files
from detlab.system.locks import Lock
from detlab.training.callbacks import EarlyStop, NonFiniteLossError, checkpoint
from detlab.training.fit import train
from detlab.training.signals import Stopped
from tests import killing
from tests.data.writing import simple_voc
from tests.killing import differences, outcome

ROOT = Path(__file__).resolve().parents[2]


class At(L.Callback):
    """Does something at the end of a training step."""

    def __init__(self, step: int, action: Callable[[L.Trainer], None]) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action(trainer)


class AtStart(L.Callback):
    """Does something before training."""

    def __init__(self, action: Callable[[L.Trainer], None]) -> None:
        self.action = action

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.action(trainer)


def made(folder: Path, *more: str, at: L.Callback | None = None) -> dict[str, Any]:
    """The config of the tiny run of tests/killing.py, with a callback of the test's own."""
    killing.GIVEN[:] = [at]
    config = killing.config_of(folder, 1, False, *more)
    config["callbacks"]["places"] = {"_target_": "tests.killing.given"} if at else None
    return config


def run(folder: Path, *more: str, at: L.Callback | None = None) -> Path:
    """The tiny run in this process."""
    train(made(folder, *more, at=at))
    return folder


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    return run(tmp_path_factory.mktemp("whole"))


def test_the_status_tells_what_was_run(whole: Path) -> None:
    told = status(whole)
    assert told["state"] == "finished"
    assert told["config_hash"] == config_hash(made(whole))
    assert len(told["data_fingerprint"]) == 12
    assert {"torch", "lightning", "detlab"} <= told["packages"].keys()
    assert told["score"] is not None


def test_the_same_again_with_two_workers(whole: Path, tmp_path: Path) -> None:
    again = run(tmp_path, "data.num_workers=2")
    assert differences(outcome(whole), outcome(again)) == []


def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    other = run(tmp_path, "seed=1")
    name = "checkpoints/last.ckpt"
    assert differences(outcome(whole)[name]["state_dict"], outcome(other)[name]["state_dict"])


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 2), (signal.SIGINT, 3), (signal.SIGUSR1, 5)])
def test_a_signal_saves_and_leaves_and_nothing_is_lost(whole: Path, tmp_path: Path, number: int, step: int) -> None:
    """Steps 3 and 6 end an epoch: there the evaluation and the epoch's checkpoint come first."""
    options, before = ("callbacks.checkpoint.every_n_steps=null",), signal.getsignal(number)
    with pytest.raises(Stopped) as stop:
        run(tmp_path, *options, at=At(step, lambda _: os.kill(os.getpid(), number)))
    assert stop.value.signal == number
    assert status(tmp_path)["state"] == "stopped"
    assert signal.Signals(number).name in status(tmp_path)["reason"]
    assert read_content(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == step
    run(tmp_path, *options, "resume=true")
    assert status(tmp_path)["state"] == "finished"
    assert differences(outcome(whole), outcome(tmp_path)) == []
    assert signal.getsignal(number) == before


def test_every_checkpoint_of_a_run_is_one_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an epoch's end are saved before Lightning counts the epoch as completed."""
    kept: list[Path] = []
    save = checkpoint.save_tensors

    def keep(path: Path, content: Any, **options: Any) -> None:
        save(path, content, **options)
        kept.append(tmp_path / f"{len(kept)}" / "checkpoints" / path.name)
        kept[-1].parent.mkdir(parents=True)
        shutil.copy(path, kept[-1])

    monkeypatch.setattr(checkpoint, "save_tensors", keep)
    run(tmp_path / "run")
    assert {file.name for file in kept} == {"best.ckpt", "last.ckpt"}
    for file in kept:
        assert start_of(made(file.parents[1], "resume=true")).checkpoint == file


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty", "another model"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    whole: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, at=At(4, lambda _: os.kill(os.getpid(), signal.SIGTERM)))
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, last)
    elif damage == "another model":
        stored = torch.load(last, weights_only=True)
        stored["detlab"]["config"]["model"]["neck"]["width"] = 99
        torch.save(stored, last)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes(b ^ 255 for b in content[middle : middle + 64]) + content[middle + 64 :]
        last.write_bytes({"truncated": content[:-1000], "empty": b"", "flipped": flipped}[damage])
    capsys.readouterr()
    run(tmp_path, "resume=true")
    said = capsys.readouterr().out
    assert f"{last} is" in said
    assert "It is left out" in said
    assert "previous.ckpt, step 3" in said
    assert differences(outcome(whole), outcome(tmp_path)) == []


def changed(folder: Path, whole: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> Path:
    """A run whose last.ckpt was loaded, changed and saved again; its best.ckpt is that of the whole run."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns(".lock", "result.json"))
    for file in (folder / "checkpoints").iterdir():
        if file.name == "last.ckpt":
            content = torch.load(file, weights_only=True)
            change(content)
            if not sealed:
                del content["detlab"]["seal"]
            torch.save(content, file)
        elif file.name != "best.ckpt":
            file.unlink()
    (folder / "status.json").write_text(json.dumps(status(folder) | {"state": "running"}))
    return folder


def state_of(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]["state"][0]


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda c: c.update(lr_schedulers=[]),
    lambda c: c["lr_schedulers"][0].update(base_lrs=["a"]),
    lambda c: state_of(c).update(exp_avg=torch.zeros(1)),  # torch's fused kernel reads beyond it
    lambda c: state_of(c)["exp_avg_sq"].fill_(torch.inf),
    lambda c: state_of(c).pop("step"),
    lambda c: c["optimizer_states"][0]["param_groups"][0].update(lr="a"),
    lambda c: c["loops"]["fit_loop"].pop("epoch_loop.state_dict"),
    lambda c: c["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"].update(ready="x"),
    lambda c: c.pop("DetectionData"),
    lambda c: c["DetectionData"].update(images=9999),
    lambda c: c.update(callbacks={}),
    lambda c: c["detlab"].update(extra=1),
    lambda c: c.pop("averaging_state"),
    lambda c: next(iter(c["state_dict"].values())).add_(1),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_a_checkpoint_that_was_changed_is_left_out(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    start = start_of(made(changed(tmp_path / "run", whole, change), "resume=true"))
    assert start.checkpoint == tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert "last.ckpt is damaged: it was changed after detlab wrote it; its weights alone" in capsys.readouterr().out


def test_what_a_file_does_not_keep_breaks_no_seal(whole: Path, tmp_path: Path) -> None:
    """Such as the order in which tensors share memory; a file saved again with the same content is the same."""
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    assert start_of(made(run_dir, "resume=true")).checkpoint == run_dir / "checkpoints" / "last.ckpt"


NO_SEAL: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: state_of(c).update(exp_avg=torch.zeros(1)), "found a state of the optimiser that does not fit its"),
    (lambda c: state_of(c).pop("step"), r"cannot restore .*last\.ckpt in this run \(KeyError: 'step'\)"),
    (
        lambda c: c["optimizer_states"][0].pop("param_groups"),
        r"cannot restore .*last\.ckpt in this run \(KeyError: 'par",
    ),
    (lambda c: c["state_dict"].popitem(), r"cannot restore .*last\.ckpt in this run \(RuntimeError: Error\(s\) in"),
    (
        lambda c: c["DetectionData"].pop("images"),
        r"cannot restore .*\(KeyError: 'images'\); give the options of before",
    ),
]


@pytest.mark.parametrize(("change", "said"), NO_SEAL, ids=range(len(NO_SEAL)))
def test_a_checkpoint_of_before_seals_that_does_not_fit_is_one_sentence(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    run_dir = changed(tmp_path / "run", whole, change, sealed=False)
    with pytest.raises(ConfigError, match=f"^resume=true {said}"):
        run(run_dir, "trainer.max_epochs=4", "resume=true")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "optim=sgd",
            r"other options than SGD \(amsgrad, betas, .*\); give the optim= of before, or start another run",
        ),
        (
            "optim.decay_norm_and_bias=true",
            r"cannot restore .*last\.ckpt in this run \(ValueError: loaded state dict has",
        ),
        (
            "trainer.max_epochs=1",
            r"found .*last\.ckpt after 3 epochs, and trainer\.max_epochs=1 is less; use trainer\.max_epochs=3",
        ),
        ("trainer.max_epochs=2", r"found .*last\.ckpt after 3 epochs, and trainer\.max_epochs=2 is less"),
    ],
)
def test_options_that_a_run_cannot_go_on_with(whole: Path, tmp_path: Path, option: str, said: str) -> None:
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    with pytest.raises(ConfigError, match=f"^resume=true .*{said}"):
        run(run_dir, "trainer.max_epochs=4", option, "resume=true")


def test_options_of_the_optimiser_hold_after_a_restart(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan that is printed says so; the checkpoint's own would be used without a word."""
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    before = read_content(run_dir / "checkpoints" / "last.ckpt")["lr_schedulers"][0]["base_lrs"][0]
    run(run_dir, "optim.lr=0.002", "optim.weight_decay=0.1", "trainer.max_epochs=4", "resume=true")
    said = capsys.readouterr().out
    assert "the optimiser goes on with weight_decay 0.1 (before: 0.05), learning rate" in said
    after = read_content(run_dir / "checkpoints" / "last.ckpt")
    assert after["lr_schedulers"][0]["base_lrs"][0] == pytest.approx(2 * before)
    assert after["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.1


def test_an_average_that_is_given_up_leaves_the_trained_weights(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    trained = read_content(run_dir / "checkpoints" / "last.ckpt")["current_model_state"]
    run(run_dir, "callbacks.ema=null", "resume=true")
    assert "without the average of the weights that the run kept" in capsys.readouterr().out
    module = read_content(run_dir / "checkpoints" / "last.ckpt")
    assert differences(dict(module.get("current_model_state", trained)), dict(trained)) == []


@pytest.mark.parametrize("best", ["gone", "damaged"])
def test_a_best_checkpoint_that_cannot_be_read_is_told_before_training(
    whole: Path, tmp_path: Path, best: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The final test would end in a traceback otherwise, after all of training."""
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    file = run_dir / "checkpoints" / "best.ckpt"
    file.unlink()
    if best == "damaged":
        file.write_bytes(b"PK")
    run(run_dir, "trainer.max_epochs=4", "resume=true")
    said = capsys.readouterr().out
    assert f"{file} is {'gone' if best == 'gone' else 'not a checkpoint'}" in said
    assert "the best evaluation from here on is kept as best.ckpt" in said
    assert status(run_dir)["state"] == "finished"
    assert read_content(file)["epoch"] == 3


def test_a_run_that_ended_without_its_last_checkpoint_gets_one(whole: Path, tmp_path: Path) -> None:
    """The stages of a run are joined from it."""
    run_dir = changed(tmp_path / "run", whole, lambda content: None)
    (run_dir / "checkpoints" / "last.ckpt").rename(run_dir / "checkpoints" / "previous.ckpt")
    run(run_dir, "resume=true")
    assert differences(outcome(whole), outcome(run_dir)) == []


def test_the_patience_of_early_stopping_is_that_of_the_config() -> None:
    given, kept = (EarlyStop(monitor="val/map", patience=patience) for patience in (9, 3))
    given.load_state_dict(kept.state_dict() | {"wait_count": 3})
    assert (given.patience, given.wait_count) == (9, 3)


def test_no_checkpoint_that_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"found no checkpoint to go on from in .*last.ckpt is not a checkpoint"):
        run(tmp_path, "resume=true")


def test_a_finished_run_is_not_written_over(whole: Path) -> None:
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="holds a finished run; give another folder"):
        run(whole, "seed=1")
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.name != ".lock"} == {
        p: content for p, content in before.items() if p.name != ".lock"
    }


def test_a_finished_run_says_so(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "status.json").read_bytes()
    score = train(made(whole, "resume=true"))
    assert "is finished: nothing to resume" in capsys.readouterr().out
    assert score == status(whole)["score"]
    assert (whole / "status.json").read_bytes() == before


def test_the_newest_unfinished_run_of_the_same_config_is_found(tmp_path: Path) -> None:
    def leave(name: str, state: str, started: str, **changes: Any) -> Path:
        folder = tmp_path / "2026-01-01" / name
        config = made(folder)
        files.write_json(
            folder / "status.json",
            {"state": state, "started": started, "config_hash": config_hash(config | changes)},
        )
        return folder.resolve()

    own = tmp_path / "2026-01-02" / "new"
    config = made(own, "resume=true")
    with pytest.raises(ConfigError, match="found no unfinished run of this config"):
        find_run(config, tmp_path)
    finished = leave("finished", "finished", "2026-01-09")
    assert find_run(config, tmp_path) == finished
    leave("older", "failed", "2026-01-01")
    wanted = leave("newer", "stopped", "2026-01-02")
    leave("other", "failed", "2026-01-03", seed=5)
    assert find_run(config, tmp_path) == wanted
    lock = Lock(wanted / ".lock")
    assert lock.take()
    assert find_run(config, tmp_path).name == "older"
    lock.give_back()


def test_a_folder_that_another_process_trains_in_is_left_alone(tmp_path: Path) -> None:
    lock = Lock(tmp_path / ".lock")
    assert lock.take()
    with pytest.raises(ConfigError, match=f"is held by another detlab command .process {os.getpid()} on"):
        run(tmp_path, "resume=true")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_loss_that_is_not_finite_keeps_the_good_checkpoint_and_writes_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RetinaNet.loss

    def poison(trainer: L.Trainer) -> None:
        def broken(self: RetinaNet, batch: Any, features: Any = None) -> dict[str, torch.Tensor]:
            losses = honest(self, batch, features)
            return {k: v * torch.nan for k, v in losses.items()} if self.training else losses

        monkeypatch.setattr(RetinaNet, "loss", broken)

    with pytest.raises(NonFiniteLossError, match=r"at step 4 \(image ids \[.*train-00"):
        run(tmp_path, at=At(4, poison))
    assert status(tmp_path)["state"] == "failed"
    good = read_content(tmp_path / "checkpoints" / "last.ckpt")
    assert good["global_step"] == 4
    assert all(torch.isfinite(v).all() for v in good["state_dict"].values())
    file = tmp_path / "nonfinite" / "step000004-rank0.ckpt"
    assert str(file) in status(tmp_path)["reason"]
    dumped = load_dumped_batch(file, ["tests"])
    weights = {k.removeprefix("detector."): v for k, v in good["current_model_state"].items()}
    assert differences(weights, dumped.checkpoint.state) == []
    replayed = replay(dumped)
    assert all(value != value for value in replayed.losses.values())
    assert replayed.bad_gradients
    assert replayed.bad_weights == []
    monkeypatch.setattr(RetinaNet, "loss", honest)
    assert replay(dumped).bad_gradients == []
    with pytest.raises(ConfigError, match="is a checkpoint without a batch"):
        load_dumped_batch(tmp_path / "checkpoints" / "last.ckpt", ["tests"])


def test_a_full_disk_ends_the_run_and_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def full(trainer: L.Trainer) -> None:
        def no_room(handle: int) -> None:
            if "ckpt" in os.readlink(f"/proc/self/fd/{handle}"):
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        monkeypatch.setattr(os, "fsync", no_room)

    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, at=At(4, full))
    assert status(tmp_path)["reason"] == "OSError: [Errno 28] No space left on device"
    assert read_content(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_status_on_a_full_disk_is_written_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("x" * 100)
    files.overwrite(path, b'{"state": "failed"}')
    assert json.loads(path.read_text()) == {"state": "failed"}
    with pytest.raises(OSError, match="no room"):
        files.overwrite(path, b"x" * 101)


def voc_run(folder: Path, root: Path, at: L.Callback, *more: str) -> None:
    """The tiny run on pictures in files."""
    voc = ("data=voc", f"data.root={root}", "data.size=64", "data.cache_dir=null", "data.batch_size=1")
    composed = compose_config("train", [*voc, *more, "name=voc", f"paths.run_dir={folder}"])
    train(made(folder, *more, at=at) | plain_config(composed, ["data"]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_data_folder_ends_the_run(tmp_path: Path, workers: int) -> None:
    root = simple_voc(tmp_path / "voc")
    with pytest.raises((ValueError, RuntimeError), match=r"voc/JPEGImages/..jpg could be read when training began"):
        voc_run(tmp_path / "run", root, AtStart(lambda _: shutil.rmtree(root)), f"data.num_workers={workers}")
    told = status(tmp_path / "run")
    assert told["state"] == "failed"
    assert "JPEGImages" in told["reason"]


def test_a_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    earlier = {child.pid for child in multiprocessing.active_children()}  # workers that other tests left behind

    def kill_worker(trainer: L.Trainer) -> None:
        own = [child.pid for child in multiprocessing.active_children() if child.pid not in earlier]
        os.kill(own[-1], signal.SIGKILL)

    ends = r"DataLoader worker \(pid.*(is killed by signal: Killed|exited unexpectedly)"
    with pytest.raises(RuntimeError, match=ends):
        run(tmp_path, "data.num_workers=1", at=At(1, kill_worker))
    assert "DataLoader worker" in status(tmp_path)["reason"]


def harness(out: Path, *words: str, limit: float = 550) -> dict[str, Any]:
    """tests/killing.py in a process of its own, from which runs can be forked."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(out), *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=limit,
    )
    assert done.stdout.strip(), done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return harness(tmp_path_factory.mktemp("faults"), "faults")


@pytest.fixture(scope="module")
def more_faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return harness(tmp_path_factory.mktemp("faults"), "more-faults")


def check_named(seen: dict[str, Any], statuses: list[int], reason: str) -> None:
    assert seen["statuses"] == statuses, seen["logs"]
    assert seen["state"] == "failed", seen["logs"][0][-2000:]
    assert reason in seen["reason"]
    assert seen["s"] < 60


def test_a_rank_that_fails_ends_the_others_and_is_named(faults: dict[str, Any]) -> None:
    check_named(faults["hung"], [1, -signal.SIGKILL], "no word from rank 1")  # with timeout_s=4
    check_named(faults["first dead"], [-signal.SIGKILL, 1], "is gone; rank 1: ")
    check_named(faults["broken"], [1, 1], "rank 1: ValueError: broken on purpose")


def test_a_signal_to_one_rank_stops_all_at_the_same_step(faults: dict[str, Any]) -> None:
    seen = faults["asked to stop"]
    assert seen["statuses"] == [128 + signal.SIGTERM] * 2
    assert (seen["state"], seen["reason"]) == ("stopped", "asked to stop by SIGTERM")


@pytest.mark.slow
def test_a_dead_or_stopped_rank_is_named(more_faults: dict[str, Any]) -> None:
    check_named(more_faults["dead"], [1, -signal.SIGKILL], "no word from rank 1")
    check_named(more_faults["first stopped"], [-signal.SIGKILL, 1], "is stopped; rank 1: ")


@pytest.mark.slow
def test_a_start_may_take_longer_than_a_step(more_faults: dict[str, Any]) -> None:
    """Rank 1 comes six seconds late, and no collective operation may wait longer than four."""
    seen = more_faults["slow start"]
    assert (seen["statuses"], seen["state"]) == ([0, 0], "finished"), seen["logs"]


@pytest.mark.slow
def test_ranks_with_different_configs_refuse_to_run(more_faults: dict[str, Any]) -> None:
    seen = more_faults["other config"]
    assert seen["statuses"] == [1, 1]
    for log in seen["logs"]:
        assert "Rank 1 was started with another config than rank 0" in log


@pytest.mark.slow
def test_the_command_finds_its_run_again_and_repeats_it(tmp_path: Path) -> None:
    """resume=true without a folder; detlab rerun, whose metrics are the same to the bit."""

    def command(module: str, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"DETLAB_OUTPUTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", f"detlab.commands.{module}", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )

    words = [o for o in killing.OVERRIDES if not o.startswith("name=")]
    first = command("train", *words)
    assert first.returncode == 0, first.stderr[-2000:]
    (folder,) = tmp_path.glob("*/*")
    facts = status(folder)
    files.write_json(folder / "status.json", facts | {"state": "failed"})
    again = command("train", *words, "resume=true")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "checkpoints/last.ckpt, step 6" in again.stdout.replace("\n", "")
    assert status(folder)["state"] == "finished"
    done = command("train", *words, "resume=true")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "is finished: nothing to resume" in done.stdout
    assert [f.resolve() for f in tmp_path.glob("*/*")] == [folder.resolve()]
    other = command("train", *words, "resume=true", "seed=5")
    assert other.returncode == 2
    assert "found no unfinished run of this config" in other.stderr
    repeated = command("rerun", str(folder), f"out={tmp_path / 'again'}")
    assert repeated.returncode == 0, repeated.stdout[-2000:] + repeated.stderr[-2000:]
    assert "metrics are the same to the bit" in repeated.stdout


def rank_of(process: subprocess.Popen[bytes]) -> int:
    """Process id of the rank that a command has started; waits for it."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        asked = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)]
        listed = subprocess.run(asked, capture_output=True, text=True)
        found = [int(line.split()[0]) for line in listed.stdout.splitlines() if "train_ddp_process_1" in line]
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no rank was started")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "step"])
def test_no_rank_outlives_the_first_one(tmp_path: Path, moment: str) -> None:
    """kill -9 of rank 0 while the other one still imports, and in mid-run, where that one says what happened."""
    more = ("trainer=ddp_cpu", "trainer.max_epochs=1000", f"hydra.run.dir={tmp_path}")
    words = [o for o in killing.OVERRIDES if not o.startswith(("trainer.max_epochs", "name="))]
    process = subprocess.Popen([sys.executable, "-m", "detlab.commands.train", *words, *more], cwd=ROOT)
    try:
        child = rank_of(process)
        while moment == "step" and not (tmp_path / "checkpoints" / "last.ckpt").is_file():
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    killed = time.monotonic()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < killed + (2 if moment == "start" else 30)
        time.sleep(0.01)
    if moment == "step":
        assert status(tmp_path)["state"] == "failed"
        assert f"rank 0 (process {process.pid}) is gone" in status(tmp_path)["reason"]


@pytest.mark.slow
def test_a_rank_that_lightning_started_dies(tmp_path: Path) -> None:
    """The first process names it, where Lightning's own observer would kill that process without a word."""
    more = ("trainer=ddp_cpu", "trainer.max_epochs=1000", f"hydra.run.dir={tmp_path}")
    words = [o for o in killing.OVERRIDES if not o.startswith(("trainer.max_epochs", "name="))]
    process = subprocess.Popen(
        [sys.executable, "-m", "detlab.commands.train", *words, *more], cwd=ROOT, stderr=subprocess.PIPE
    )
    last = tmp_path / "checkpoints" / "last.ckpt"
    try:
        end = time.monotonic() + 300
        while not last.is_file() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        child = rank_of(process)
        os.kill(child, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode not in (0, -signal.SIGKILL)
    assert status(tmp_path)["state"] == "failed", errors.decode()[-2000:]
    assert f"local rank 1 (process {child}) was killed by signal 9" in status(tmp_path)["reason"]


@pytest.mark.many
@pytest.mark.parametrize(
    ("recipe", "processes", "kills"),
    [("retinanet", 1, 20), ("retinanet", 2, 10), *((name, 1, 6) for name in killing.RECIPES if name != "retinanet")],
)
def test_runs_killed_anywhere_come_out_the_same_to_the_bit(
    tmp_path: Path, recipe: str, processes: int, kills: int
) -> None:
    found = harness(tmp_path, f"kills={kills}", f"processes={processes}", f"recipe={recipe}", limit=3000)
    assert found["differences"] == []
    assert sum(found["kills"].values()) == kills
    assert set(found["kills"]) == {"start", "step", "checkpoint", "evaluation", "test"}
