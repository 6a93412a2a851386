"""Claiming a run folder: one process at a time, nothing written over, and the kernel gives the claim back."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from detlab.commands.claim import RunFolder, _ask
from detlab.config.compose import config_dir, config_hash
from detlab.errors import ConfigError
from detlab.runs import folder as module
from detlab.runs.folder import claim, claim_free, claimed, give_back, in_use, rank, remove_unused
from detlab.system.locks import Lock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nothing_stays_held() -> Iterator[None]:
    yield
    for path in list(module._held):
        give_back(path)


def other(folder: Path) -> Lock:
    """What another process holds: a lock of one process is none to itself only where it claimed it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / ".lock")
    assert lock.take()
    return lock


def leave(folder: Path, **facts: object) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(facts))


def test_a_held_folder_is_refused_also_under_resume(tmp_path: Path) -> None:
    lock = other(tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(ConfigError, match=f"run is held by another detlab command .process {os.getpid()} on"):
            claim(tmp_path / "run", resume=resume)
    assert in_use(tmp_path / "run")
    lock.give_back()
    assert not in_use(tmp_path / "run")
    claim(tmp_path / "run")
    claim(tmp_path / "run")  # this process has it
    assert not in_use(tmp_path / "run")  # by another


def test_the_kernel_gives_a_killed_process_claim_back(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        claim(tmp_path)
        (tmp_path / "ready").touch()
        time.sleep(60)
        os._exit(0)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    assert in_use(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    claim(tmp_path)


def test_a_living_process_id_is_no_claim(tmp_path: Path) -> None:
    leave(tmp_path, state="running", process=os.getppid(), host=platform.node())
    claim(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"state": "finished"}, "holds a finished run; give another folder"),
        ({"state": "running"}, r"holds an unfinished run .status.json.; resume=true goes on with it"),
        ({"state": "failed"}, r"holds an unfinished run .status.json, failed.; resume=true goes on with it"),
    ],
)
def test_an_occupied_folder_needs_resume(tmp_path: Path, facts: dict[str, str], said: str) -> None:
    leave(tmp_path, **facts)
    with pytest.raises(ConfigError, match=said):
        claim(tmp_path)
    claim(tmp_path, resume=True)


def test_a_refused_folder_is_free_again(tmp_path: Path) -> None:
    leave(tmp_path, state="finished")
    with pytest.raises(ConfigError):
        claim(tmp_path)
    assert not in_use(tmp_path)


def test_what_a_refused_command_left_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "train.log").touch()
    claim(tmp_path)


def test_a_default_name_gets_a_free_suffix(tmp_path: Path) -> None:
    assert [claim_free(tmp_path / "day" / "run").name for _ in range(3)] == ["run", "run-2", "run-3"]
    (tmp_path / "day" / "run-4").touch()  # a file of that name is in the way as well
    assert claim_free(tmp_path / "day" / "run").name == "run-5"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/run cannot be made .Not a directory.; give another folder, hydra"):
        claim_free(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match=r"file/run cannot be written .Not a directory.; give another folder, out="):
        claim(tmp_path / "file" / "run", option="out")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    claim(tmp_path)
    assert "lies on a file system without locks: nothing keeps a second command out" in capsys.readouterr().err


def test_what_a_dead_process_left_behind_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loader worker of a killed process holds the lock until it notices."""
    lock = other(tmp_path)
    lock.path.write_text(json.dumps({"process": 2**30, "host": platform.node()}))
    timer = threading.Timer(1.0, lock.give_back)
    timer.start()
    claim(tmp_path)  # longer than the moment that a living holder is given
    assert "is gone, but a process that it started still holds" in capsys.readouterr().err
    give_back(tmp_path)
    lock = other(tmp_path)
    lock.path.write_text(json.dumps({"process": 2**30, "host": platform.node()}))
    monkeypatch.setattr(module, "LEFT_BEHIND_S", 0.1)
    with pytest.raises(ConfigError, match="is held by another"):
        claim(tmp_path)
    lock.give_back()


def test_a_moved_folder_takes_its_lock_along(tmp_path: Path) -> None:
    """A sweep moves what a failed try left; the next one starts in a folder of the same name."""
    lock = other(tmp_path / "0")
    (tmp_path / "0").rename(tmp_path / "failed")
    claim(tmp_path / "0")
    assert in_use(tmp_path / "failed")
    lock.give_back()


def test_only_the_first_of_several_processes_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank() == 0
    lock = other(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "1")
            assert rank() == 1
            with claimed(tmp_path):
                pass
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")  # RANK counts over all machines
    assert rank() == 0
    with pytest.raises(ConfigError, match="is held"), claimed(tmp_path):
        pass
    lock.give_back()


def started(command: str, *overrides: str) -> str:
    """The folder that a command's callback gives it."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(command, overrides=list(overrides), return_hydra_config=True)
    node = {key: value for key, value in config.hydra.callbacks.run_folder.items() if key != "_target_"}
    RunFolder(**node).on_run_start(config)
    return str(config.hydra.run.dir)


@pytest.mark.parametrize("command", ["check", "anchors", "evaluate", "predict", "export", "proposals"])
def test_no_command_writes_into_the_folder_of_a_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path / "run", state="finished")
    given = [f"hydra.run.dir={tmp_path / 'run'}"]
    given += ["resume=true"] if command in ("check", "anchors") else []
    with pytest.raises(SystemExit) as end:
        started(command, *given)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"detlab: {tmp_path / 'run'} holds a finished run; give another folder")


def test_default_folders_of_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the second, or, where the same command goes on with what it left, by what lies in it."""
    monkeypatch.setenv("DETLAB_OUTPUTS", str(tmp_path))
    first, second = started("predict"), started("predict")
    assert first != second
    assert Path(second).is_dir()
    assert started("proposals") == str(tmp_path / "proposals" / "shapes-grid") == started("proposals")
    lock = Path(tmp_path / "proposals" / "shapes-grid")
    give_back(lock)
    held = other(lock)
    with pytest.raises(SystemExit):
        started("proposals")
    held.give_back()


def test_a_given_folder_is_that_of_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra's files go there too, and resume=true looks nowhere else."""
    run = tmp_path / "run"
    assert started("train", f"paths.run_dir={run}") == str(run)
    give_back(run)
    (run / "status.json").write_text('{"state": "stopped"}')
    with pytest.raises(SystemExit):
        started("train", f"paths.run_dir={run}")
    assert "resume=true goes on with it" in capsys.readouterr().err
    assert started("train", f"paths.run_dir={run}", "resume=true") == str(run)
    give_back(run)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["paths.run_dir=a"], "a"),
        (["paths.run_dir=."], "."),
        (["paths={run_dir: a}"], "a"),
        (["paths.run_dir='b/${seed}'", "seed=3"], "b/3"),
        (["paths.run_dir='~/a'"], "home/a"),
        (["hydra.run.dir='~/a'"], "home/a"),
        (["paths.run_dir=a", "hydra.run.dir=b/../a"], "a"),
    ],
)
def test_a_folder_is_one_however_it_is_given(
    words: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "b").mkdir()
    assert Path(started("train", *words)).resolve() == (tmp_path / folder).resolve()
    assert {path.name for path in tmp_path.rglob(".lock")} == {".lock"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["paths.run_dir=a", "hydra.run.dir=b"], "hydra.run.dir=b and paths.run_dir=.*/a are two folders for one run"),
        (["paths.run_dir="], "paths.run_dir= names no folder; give one, paths.run_dir=FOLDER, or leave it out"),
        (["hydra.run.dir=' '"], "hydra.run.dir= names no folder; give one, hydra.run.dir=FOLDER, or leave it out"),
    ],
)
def test_folders_that_are_none_or_two_are_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An unset variable of the shell would write into the current folder, and checkpoints to the root's."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        started("train", *words)
    assert re.search(said, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_has_no_folder_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["paths.run_dir=a"], return_hydra_config=True)
    with pytest.raises(SystemExit):
        RunFolder().on_multirun_start(config)
    assert "paths.run_dir=FOLDER is the folder of one run; give that of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["/a", "/ü", '/a"b', "/a\\b"])
def test_the_hash_of_a_config_is_the_same_in_every_folder(folder: str) -> None:
    told = {"seed": 0, "paths": {"run_dir": folder}, "callbacks": {"dirpath": f"{folder}/checkpoints"}}
    same = {"seed": 0, "paths": {"run_dir": "/b"}, "callbacks": {"dirpath": "/b/checkpoints"}}
    assert config_hash(told) == config_hash(same)


def test_other_ranks_of_a_run_write_no_config_and_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"hydra.run.dir={tmp_path / 'run'}"], return_hydra_config=True)
    RunFolder(resumable=True).on_run_start(config)
    assert config.hydra.output_subdir is None
    assert list(config.hydra.job_logging.root.handlers) == ["console"]
    assert not (tmp_path / "run").exists()


def test_other_ranks_stay_in_the_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra makes the folder of every rank; the default one would be left empty."""
    monkeypatch.setenv("RANK", "1")
    assert started("train", f"paths.run_dir={tmp_path / 'run'}") == str(tmp_path / "run")


def test_without_a_terminal_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as where a command was started with <&-
    assert started("train", f"hydra.run.dir={tmp_path / 'run'}", "resume=true") == str(tmp_path / "run")


def test_an_end_of_input_is_a_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ConfigError, match="holds no run; give the folder of one"):
        _ask(tmp_path)


def test_an_error_in_the_claim_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra would make a warning of it and go on."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("of any kind")

    monkeypatch.setattr("detlab.commands.claim.claim_free", broken)
    with pytest.raises(SystemExit) as end:
        started("train")
    assert end.value.code == 1


@pytest.mark.parametrize("commands", [2, pytest.param(4, marks=pytest.mark.many)])
def test_commands_of_one_moment_share_no_folder(tmp_path: Path, commands: int) -> None:
    """Three races through the whole command; more of them: python -m tests.racing OUT races=50."""
    races = 3 if commands == 2 else 12
    done = subprocess.run(
        [sys.executable, "-m", "tests.racing", str(tmp_path / "races"), f"races={races}", f"commands={commands}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.stdout.strip(), done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["wrong"], found["races"]) == ([], races)
    assert found["contested"], found


@pytest.mark.parametrize("default", [True, False])
def test_a_refused_command_leaves_no_folder(tmp_path: Path, default: bool) -> None:
    folder = (claim_free if default else claim)(tmp_path / "day" / "run") or tmp_path / "day" / "run"
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("{}")
    (folder / "train.log").touch()
    remove_unused()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["status.json", "train.log", "of_mine.txt"])
def test_a_folder_with_anything_else_stays(tmp_path: Path, file: str) -> None:
    (claim_free(tmp_path / "run") / file).write_text("text")
    remove_unused()
    assert (tmp_path / "run" / file).is_file()


def test_a_folder_of_the_user_s_own_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    claim(tmp_path / "mine")
    other_run = claim_free(tmp_path / "day" / "run")
    (tmp_path / "day" / "another").mkdir()
    remove_unused()
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "day" / "another").is_dir()
    assert not other_run.exists()


def test_a_folder_that_another_command_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, take, tries = tmp_path / "run", Lock.take, []

    def removed_once(lock: Lock) -> bool:
        tries.append(lock)
        if len(tries) == 1:
            folder.rmdir()
        return take(lock)

    monkeypatch.setattr(Lock, "take", removed_once)
    claim(folder)
    assert (folder / ".lock").is_file()
