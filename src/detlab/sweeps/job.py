"""A job of a sweep: its facts, its progress, and its job.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detlab.config.overrides import short_names
from detlab.system.files import read_facts, read_json, write_json
from detlab.system.history import read_history, read_lines

STATES = ("queued", "running", "done", "pruned", "failed", "refused", "timeout", "stopped")
OPEN = ("queued", "running")
GOOD = ("done", "pruned")  # not run again
RESUMABLE = ("running", "stopped", "timeout")  # ended from outside, so their checkpoints are valid
LOG, RECORD = "job.log", "job.json"


@dataclass
class Job:
    """A job and its state: queued, running, done, pruned, failed, refused, timeout or stopped.

    Args:
        number: number in the sweep; also the name of the folder.
        folder: run folder.
        overrides: all overrides of the job, as on a command line.
        choices: {whole key: value} of the overrides that differ between jobs.
        hash: hash of the composed config (detlab.config.compose.config_hash).
        epochs: largest number of epochs; None: unknown.
        gpus: number of GPUs needed; -1: all of the machine; 0: it runs on the CPU.
        processes: number of DDP processes on this machine.
    """

    number: int
    folder: Path
    overrides: list[str]
    choices: dict[str, str]
    hash: str
    epochs: int | None = None
    gpus: int = 0
    processes: int = 1
    state: str = "queued"
    earlier: bool = False  # finished by an earlier command
    tries: int = 0
    seconds: float = 0.0
    reason: str | None = None
    traceback: str | None = None
    command: list[str] = field(default_factory=list)
    cluster_id: str | None = None
    monitor: str | None = None
    value: float | None = None  # best value of the monitored metric

    @property
    def checkpoint(self) -> Path:
        """The checkpoint from which an interrupted job resumes."""
        return self.folder / "checkpoints" / "last.ckpt"

    def write(self) -> None:
        """Write job.json."""
        write_json(self.folder / RECORD, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for job.json and sweep.json."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items() if k != "earlier"}

    def note_progress(self) -> Progress:
        """Read the run's progress from its files, and store the best value in this job."""
        progress = read_progress(self.folder)
        self.monitor = progress.monitor or self.monitor
        self.value = progress.best if progress.best is not None else self.value
        return progress

    def note_failure(self, exit_code: int) -> None:
        """Store the reason and the traceback found in the log."""
        self.reason, self.traceback = explain_log(self.folder / LOG, exit_code)


@dataclass(frozen=True)
class Progress:
    """Progress of a run: finished epochs and steps, and the monitored metric at every evaluation."""

    epoch: int | None = None
    step: int | None = None
    monitor: str | None = None
    history: tuple[tuple[int, float], ...] = ()  # (epoch, value)

    @property
    def last(self) -> float | None:
        """The latest value of the metric."""
        return self.history[-1][1] if self.history else None

    @property
    def best(self) -> float | None:
        """The highest value of the metric; all monitored metrics are better if higher."""
        return max((value for _, value in self.history), default=None)


def read_progress(folder: Path) -> Progress:
    """Read the progress from status.json and metrics.csv, as far as they exist."""
    status = read_facts(folder / "status.json")
    monitor = status.get("monitor") if isinstance(status.get("monitor"), str) else None
    history = read_history(folder / "metrics.csv", monitor) if monitor else ()
    steps = [status.get("step"), _last_step(folder / "metrics.csv")]  # status.json may lag behind
    step = max((s for s in steps if isinstance(s, int)), default=None)
    return Progress(epoch if isinstance(epoch := status.get("epoch"), int) else None, step, monitor, history)


def read_value(folder: Path, key: str) -> float | None:
    """A finished run's value of an objective; None if it has none.

    `key` names an entry of budget.json (latency_ms, flops ..) or else a column of metrics.csv, read at the best epoch
    of the monitored metric.
    """
    budget = read_json(folder / "budget.json")
    if isinstance(budget, dict) and isinstance(budget.get(key), int | float):
        return float(budget[key])
    progress = read_progress(folder)
    best = max(progress.history, key=lambda pair: pair[1], default=None)
    values = dict(read_history(folder / "metrics.csv", key))
    return None if best is None else values.get(best[0])


def _last_step(path: Path) -> int | None:
    """The step in the last row of a metrics.csv that has one."""
    lines = read_lines(path)
    place = lines[0].split(",").index("step") if lines and "step" in lines[0].split(",") else None
    if place is None:
        return None
    cells = (line.split(",") for line in reversed(lines[1:]))
    return next((int(row[place]) for row in cells if len(row) > place and row[place].isdecimal()), None)


def explain_log(path: Path, exit_code: int) -> tuple[str, str | None]:
    """(reason, traceback or None) found at the end of a job's log; the reason may have several lines."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return f"exit status {exit_code}, and no log", None
    said = [i for i, line in enumerate(lines) if line.startswith("detlab: ")]
    if exit_code == 2 and said:
        return "\n".join(_message(lines[said[-1] :])).removeprefix("detlab: "), None
    starts = [i for i, line in enumerate(lines) if line.lstrip().startswith(TRACEBACK)]
    if exit_code < 0 or not starts:
        how = f"ended by signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
        return how, "\n".join(lines[-20:]) or None
    block = lines[starts[-1] :]
    ends = [i for i, line in enumerate(block) if i and ERROR_LINE.match(line)]
    if not ends:
        return block[-1].strip(), "\n".join(block[-20:])
    message = _message(block[ends[0] :])
    cause = _cause(lines[: starts[-1]])
    reason = "\n".join(message) + (f" (caused by {cause})" if cause else "")
    return reason, "\n".join([*block[: ends[0]], *message][-60:])


TRACEBACK = "Traceback (most recent call last)"
ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(:|$)")
AT_MOST = 12  # largest number of lines of a message
AFTER = re.compile(  # begins with the mark of a log, or of what Python and Hydra add
    r"\[(\d{4}-\d\d-\d\d|rank)|Traceback |During handling of|The above exception|"
    r"Error executing job|Set the environment"
)


def _message(lines: Sequence[str]) -> list[str]:
    """A message of one or more lines, without the output of other writers after it."""
    kept = [lines[0].strip()]
    for line in lines[1:AT_MOST]:
        if AFTER.match(line) or not line.strip():
            break
        kept.append(line.rstrip())
    return kept


def _cause(before: Sequence[str]) -> str | None:
    """The cause of the last error, if Python names it right before the last traceback."""
    said = [line for line in before[-3:] if line.startswith("The above exception was the direct cause")]
    errors = [i for i, line in enumerate(before) if ERROR_LINE.match(line) and i and before[i - 1].startswith(" ")]
    return _message(before[errors[-1] :])[0] if said and errors else None


def choices_of(jobs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """For each job, {key: value} of the overrides that differ between jobs; for a single job all overrides."""
    tables = [dict(o.lstrip("+").partition("=")[::2] for o in overrides) for overrides in jobs]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    varying = [key for key in keys if len(jobs) == 1 or len({table.get(key) for table in tables}) > 1]
    return [{key: table[key] for key in varying if key in table} for table in tables]


def describe(choices: Mapping[str, str]) -> str:
    """Choices as one line of text."""
    names = short_names(list(choices))
    return "  ".join(f"{names[key]}={value}" for key, value in choices.items())
