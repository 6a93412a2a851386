"""The life of a sweep: what is kept, judged anew, refused, ended at once, and how the end is told."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

import detlab.sweeps.table
from detlab.errors import ConfigError
from detlab.sweeps import Job, ListFeed, Pool, Process, SweepRecord
from detlab.sweeps.job import RECORD
from detlab.sweeps.record import LOCK, SweepBusyError, forget_unused, hold, read_entry
from detlab.system.locks import Lock
from hydra_plugins.detlab_launcher._checking import check_choices, check_folder
from hydra_plugins.detlab_launcher.end import SweepEnd
from hydra_plugins.detlab_launcher.launcher import ProcessLauncher
from hydra_plugins.detlab_launcher.slurm import SlurmLauncher
from tests.sweeps.test_launcher import folder_of, jobs, sweep


def job(folder: Path, number: int = 0, **known: Any) -> Job:
    return Job(number=number, folder=folder / str(number), overrides=[], choices={}, hash=f"h{number}", **known)


def end_of(tmp_path: Path, *ended: Job) -> SweepEnd:
    end = SweepEnd()
    end.records.append(SweepRecord(tmp_path, []))
    end.records[0].jobs += ended
    return end


def test_the_status_does_not_hang_on_what_can_be_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = job(tmp_path, state="failed", reason="[/x] is no markup \x1b[31m", traceback="at [/y]")
    failed.choices = {"data.sizes": "[14,30]", "model.[/z]": "1"}
    with pytest.raises(SystemExit) as left:
        end_of(tmp_path, failed).on_multirun_end(OmegaConf.create({}))
    assert left.value.code == 1
    said = capsys.readouterr().out
    assert all(part in said for part in ("[/x]", "[/y]", "[14,30]"))
    assert "\x1b[31m" not in said

    def broken(*_: Any) -> None:
        raise OSError("no terminal")

    monkeypatch.setattr(detlab.sweeps.table, "print_summary", broken)
    with pytest.raises(SystemExit) as left:
        end_of(tmp_path, failed).on_multirun_end(OmegaConf.create({}))
    assert left.value.code == 1


def test_a_reason_of_several_jobs_is_said_once_in_whole_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "a long reason, " * 10 + "and its end"
    jobs = [job(tmp_path, number=number, state="refused", reason=reason) for number in (3, 4)]
    with pytest.raises(SystemExit):
        end_of(tmp_path, *jobs).on_multirun_end(OmegaConf.create({}))
    assert capsys.readouterr().out.splitlines().count(f"job 3, 4  {reason}") == 1


def test_all_done_is_success(tmp_path: Path) -> None:
    end_of(tmp_path, job(tmp_path, state="done")).on_multirun_end(OmegaConf.create({}))


def test_what_was_refused_is_judged_anew(tmp_path: Path) -> None:
    refused = SweepRecord(tmp_path, []).add(job(tmp_path), {"state": "refused", "reason": "it needs 3 GPUs"})
    assert (refused.state, refused.reason) == ("queued", None)


def test_the_record_keeps_jobs_of_earlier_commands(tmp_path: Path) -> None:
    for numbers in ([0, 1], [1, 2]):
        record = SweepRecord(tmp_path, [])
        with record.locked():
            for name in numbers:
                number, earlier = record.place(f"h{name}")
                assert number == name
                added = record.add(job(tmp_path, number), earlier)
                added.state = "done" if name else "running"
                added.folder.mkdir(exist_ok=True)
                added.write()
            record.write()
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert [(entry["number"], entry["state"]) for entry in written["jobs"]] == [
        (0, "stopped"),
        (1, "done"),
        (2, "done"),
    ]
    assert written["asked"] == [1, 2]


def test_folders_of_another_launcher_and_damaged_records_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for number, text in enumerate(["[1]", '{"number": 0}', '{"hash": "x", "state": "done", "tries": "1"}', "{"], 1):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / RECORD).write_text(text)
        assert read_entry(tmp_path / str(number) / RECORD) is None
    record = SweepRecord(tmp_path, [])
    with record.locked():
        assert record.place("new") == (5, {})


def test_a_folder_is_read_under_its_lock_and_an_empty_one_goes_with_a_mistake(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    early = SweepRecord(folder, [])
    folder.mkdir()
    other = Lock(folder / LOCK)
    assert other.take()
    with pytest.raises(SweepBusyError), early.locked():
        pass
    other.give_back()
    with SweepRecord(folder, []).locked():
        done = job(folder, state="done")
        done.folder.mkdir()
        done.write()
    with early.locked():  # made before the other's job was done, and yet it knows
        assert early.place("h0")[1]["state"] == "done"
    with pytest.raises(ValueError, match="mistake"), SweepRecord(tmp_path / "new", []).locked():
        raise ValueError("mistake")
    assert not (tmp_path / "new").exists()
    lock = hold(tmp_path / "held")
    forget_unused(tmp_path / "held")
    assert not (tmp_path / "held").exists()
    lock.close()


def test_a_second_signal_kills_what_ignores_the_first(tmp_path: Path) -> None:
    deaf = job(tmp_path)
    deaf.command = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
    ]
    process = Process(deaf, environment={}, cwd=tmp_path)
    while "deaf\n" not in (deaf.folder / "job.log").read_text():
        time.sleep(0.02)
    process.stop(signal.SIGTERM, 30.0)
    time.sleep(0.2)
    assert process.poll() is None
    process.stop(signal.SIGKILL, 0.0)
    end = time.monotonic() + 5
    while process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)


class Deaf:
    """Ends by SIGKILL only; a user presses Ctrl-C again while the pool waits for it."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def poll(self) -> int | None:
        if not self.told:
            raise KeyboardInterrupt
        if len(self.told) == 1:
            raise KeyboardInterrupt
        return -9 if signal.SIGKILL in self.told else None

    def stop(self, sent: signal.Signals, grace: float) -> None:
        self.told.append(sent)


def test_the_pool_kills_at_the_second_interrupt(tmp_path: Path) -> None:
    handle, started = Deaf(), job(tmp_path)
    pool = Pool(start=lambda *_: handle, changed=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        pool.run(ListFeed([started]))
    assert handle.told == [signal.SIGTERM, signal.SIGKILL]
    assert started.state == "stopped"


def launcher(**changed: Any) -> ProcessLauncher:
    usual = {"n_jobs": 1, "gpus": None, "jobs_per_gpu": 1, "threads": None, "timeout": None, "retries": 0, "grace": 30}
    return ProcessLauncher(**usual | changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_jobs", -1), ("n_jobs", 0), ("n_jobs", True), ("n_jobs", "two"), ("retries", "abc"), ("retries", -1),
        ("timeout", -1), ("timeout", 0), ("timeout", float("nan")), ("grace", "x"), ("threads", 0),
        ("jobs_per_gpu", 0.5), ("gpus", 0), ("gpus", "0,1"), ("gpus", []),
    ],
)  # fmt: skip
def test_options_of_a_launcher_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key}=.* must be"):
        launcher(**{key: value})
    launcher(grace=0, timeout=0.5, gpus=[0, "1"])


def test_a_local_cluster_runs_one_task_a_job() -> None:
    usual = {"cluster": "local", "n_jobs": 1, "retries": 0, "max_requeues": 1, "threads": None}
    with pytest.raises(ConfigError, match="tasks_per_node=1"):
        SlurmLauncher(**usual, resources={"tasks_per_node": 2})
    with pytest.raises(ConfigError, match="timeout_min=soon must be"):
        SlurmLauncher(**usual, resources={"timeout_min": "soon"})
    assert SlurmLauncher(**usual, resources={"tasks_per_node": 1, "mem_gb": None}).resources == {"tasks_per_node": 1}


class Options:
    """Hydra's loader, as far as checks ask it."""

    def get_group_options(self, group: str, *_: Any, **__: Any) -> list[str]:
        return ["fpn", "none"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("ablation=neck,box_loss", "give one, and one command to each"),
        ("model/neck=glob(x*)", "matches no option of model/neck; options: fpn, none"),
        ("x=range(3,3)", "x=range.3,3. has no value"),
    ],
)
def test_choices_of_nothing_and_sweeps_of_sweeps_are_refused(written: str, message: str) -> None:
    parser = OverridesParser.create(config_loader=Options())  # type: ignore[arg-type]
    with pytest.raises(HydraException, match=message):
        check_choices(parser.parse_overrides([written]), Options())  # type: ignore[arg-type]
    check_choices(parser.parse_overrides(["ablation=neck", "model/neck=glob(*)", "x=1,2"]), Options())  # type: ignore[arg-type]


def test_another_launcher_and_another_command_keep_out_of_a_folder(tmp_path: Path) -> None:
    basic = OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    own = OmegaConf.create({"_target_": "hydra_plugins.detlab_launcher.launcher.ProcessLauncher"})
    check_folder(tmp_path / "new", basic)
    busy = pytest.raises(HydraException, match="is being worked on by another command")
    other = Lock(tmp_path / LOCK)
    assert other.take()
    with busy:
        check_folder(tmp_path, own)
    other.give_back()
    (tmp_path / "sweep.json").write_text("{}")
    check_folder(tmp_path, own)
    with pytest.raises(HydraException, match="whose finished jobs this launcher would overwrite"):
        check_folder(tmp_path, basic)


@pytest.mark.parametrize("name", ["status.json", "checkpoints"])
def test_a_sweep_keeps_out_of_a_run_s_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(HydraException, match="holds a run, not a sweep; give another folder"):
        check_folder(tmp_path, OmegaConf.create())


def test_a_file_is_no_sweep_s_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "file")}}})
    with pytest.raises(SystemExit) as stop:
        SweepEnd().on_multirun_start(config)
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"detlab: hydra.sweep.dir={tmp_path}/file cannot be written (File exists); give another folder.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=1,2", "retries=1,2"], "retries"),
        (["x=1,2", "hydra.launcher.retries=abc"], "hydra.launcher.retries=abc must be a whole number from 0 on"),
    ],
)
def test_a_mistake_in_the_command_leaves_no_folder(arguments: list[str], message: str, tmp_path: Path) -> None:
    code, said = sweep(tmp_path, *arguments)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_mistake_in_a_job_is_told_whole_and_not_tried_again(tmp_path: Path) -> None:
    code, said = sweep(tmp_path, "do=mistake,finish", "hydra.launcher.retries=2")
    assert code == 1
    wrong, fine = jobs(tmp_path)
    assert (wrong["tries"], wrong["reason"], wrong["traceback"]) == (1, "x=7 does not fit; use x=8", None)
    assert fine["state"] == "done"
    assert "Traceback" not in (folder_of(tmp_path) / "0" / "job.log").read_text()
    assert "use x=8" in said
