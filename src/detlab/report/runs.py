"""Read run folders: choices, state and results of each run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detlab.system.files import read_facts
from detlab.system.foreign import ForeignFileError, read_yaml
from detlab.system.history import read_history

GROUPS_OF_PLACE = ("hydra/", "logger", "debug")  # groups that do not change the experiment
LARGEST = 1e15  # of a number in a run's files; FLOPs of an image have 1e12
WATCHERS = ("lr_monitor", "nonfinite", "status", "results", "pictures", "budget", "dashboards", "times", "progress")
KEYS_OF_PLACE = (
    "hydra.", "resume", "logger", "threads", "name", "paths.", "trust", "data.cache_dir",
    "callbacks.checkpoint.every_n", *(f"callbacks.{name}" for name in WATCHERS),
)  # fmt: skip
WEIGHTS = "model.backbone.weights"
WEIGHTS_FILE = f"{WEIGHTS} (fingerprint)"
DATA = "the data (fingerprint)"  # the name, beside the config's keys, of what the run was trained on
KEYS_OF_MACHINE = (
    "seed", "config_hash", "data.root", "data.num_workers", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.devices", "trainer.strategy", "trainer.num_nodes",
)  # fmt: skip


class ReportError(ValueError):
    """A report is not possible; the message is one sentence."""


class NoRunsError(ReportError):
    """The folders hold no run, or no run yet."""


@dataclass
class Run:
    """One run folder."""

    folder: Path
    state: str  # state in status.json, such as finished or failed
    reason: str | None
    seed: int
    overrides: dict[str, str]  # given overrides, without KEYS_OF_PLACE and GROUPS_OF_PLACE
    given: tuple[str, ...]  # all given overrides, as written
    own: str | None  # the user's folder of own options (--config-dir) of a sweep's job
    groups: dict[str, str]  # {config group: chosen option}
    config: dict[str, Any]  # nested, with interpolations unresolved
    metrics: dict[str, float]  # results of the final test
    errors: dict[str, Any]  # error report in result.json: where AP is lost
    budget: dict[str, Any]  # content of budget.json
    curve: list[tuple[int, float]] = field(default_factory=list)  # (epoch, monitored metric)
    monitor: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    split: str = "test"  # the split that gave `metrics`; "val" for data without a test split
    odd: tuple[str, ...] = ()  # entries of result.json that are left out, since they are no finite number

    @property
    def done(self) -> bool:
        """Whether the run has a result."""
        return self.state == "finished" and bool(self.metrics)


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All runs in and below folders, in order of their paths, without the failed attempts of a sweep's jobs.

    Raises:
        ReportError: a folder does not exist, or no folder holds a run.
    """
    found: dict[Path, Run] = {}
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"{folder} is not a folder; give run folders, or folders that hold some.")
        for path in _run_folders(folder, seen):
            found.setdefault(path.resolve(), read_run(path))
    if not found:
        raise NoRunsError(
            f"{', '.join(map(str, folders))} holds no run: there is no .hydra/config.yaml or job.json in it."
        )
    return list(found.values())


def _run_folders(top: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders with a run's config, or with the record of a job that failed earlier; in numeric order.

    Each folder is visited once, since two links to a parent folder would make 2^40 paths.
    """
    place = top.resolve()
    if place in seen:
        return
    seen.add(place)
    if (top / ".hydra" / "config.yaml").is_file() or (top / "job.json").is_file():
        yield top
        return
    inside = [p for p in top.iterdir() if p.is_dir() and p.name not in ("failed", "submitit") and p.name[0] != "."]
    for path in sorted(
        inside, key=lambda p: (not p.name.isdecimal(), int(p.name) if p.name.isdecimal() else 0, p.name)
    ):
        yield from _run_folders(path, seen)


def read_run(folder: Path) -> Run:
    """Read a run folder; missing files leave their fields empty."""
    status, job = read_facts(folder / "status.json"), read_facts(folder / "job.json")
    result = read_facts(folder / "result.json")
    hydra = _mapping(_mapping(_read_yaml(folder / ".hydra" / "hydra.yaml")).get("hydra"))
    config = _mapping(_read_yaml(folder / ".hydra" / "config.yaml"))
    given = _read_yaml(folder / ".hydra" / "overrides.yaml") or job.get("overrides") or []
    overrides = dict(_pair(str(text)) for text in given) if isinstance(given, list) else {}
    kept = {k: v for k, v in overrides.items() if not k.startswith(KEYS_OF_PLACE) and k != "seed"}
    groups = _mapping(_mapping(hydra.get("runtime")).get("choices"))
    state, reason = status.get("state", "missing"), status.get("reason")
    if job.get("state") in ("failed", "refused", "timeout", "pruned", "stopped", "queued"):
        state, reason = job["state"], job.get("reason") or reason
    metrics = numbers(result.get("metrics"))
    kinds = {k: numbers(found) for k, found in _mapping(_mapping(result.get("errors")).get("kinds")).items()}
    told = status.get("monitor")
    monitor = told if told and isinstance(told, str) else "val/ar_300" if "ar_300" in metrics else "val/map"
    return Run(
        folder=folder,
        state=str(state),
        reason=None if reason is None else str(reason),
        seed=_whole(overrides.get("seed", config.get("seed", 0))),
        overrides=kept,
        given=tuple(map(str, given)) if isinstance(given, list) else (),
        own=_own_options(job.get("command")),
        groups={
            str(k): str(v)
            for k, v in groups.items()
            if not str(k).startswith(GROUPS_OF_PLACE) and "/common@" not in str(k)
        },
        config=config,
        metrics=metrics,
        errors={"kinds": kinds} if kinds else {},
        budget=numbers(read_facts(folder / "budget.json")),
        curve=read_curve(folder / "metrics.csv", monitor),
        monitor=monitor,
        status=status,
        split="val" if result.get("split") == "val" else "test",
        odd=tuple(str(k) for k in _mapping(result.get("metrics")) if k not in metrics),
    )


def _own_options(command: object) -> str | None:
    words = [str(word) for word in command] if isinstance(command, list) else []
    return words[words.index("--config-dir") + 1] if "--config-dir" in words[:-1] else None


def _mapping(value: object) -> dict[str, Any]:
    """The value if it is a mapping, else {} (the file is damaged)."""
    return value if isinstance(value, dict) else {}


def numbers(value: object) -> dict[str, float]:
    """The finite numbers of a mapping; the others would end in NaN, or in an error in the middle of a report."""
    return {
        key: number
        for key, number in _mapping(value).items()
        if type(number) in (int, float) and -LARGEST <= number <= LARGEST
    }


def _whole(value: object) -> int:
    return int(str(value)) if re.fullmatch(r"-?[0-9]{1,18}", str(value)) else 0


def read_curve(path: Path, key: str) -> list[tuple[int, float]]:
    """(finished epochs, value) of a metric at every evaluation."""
    return sorted({epoch + 1: value for epoch, value in read_history(path, key)}.items())


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a nested config; None if missing."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def setting(run: Run, key: str) -> str:
    """A run's value of a swept key: the given override, else the group's choice, else the config's value."""
    if key in run.overrides:
        return run.overrides[key]
    if key in run.groups:
        return run.groups[key]
    value = value_at(run.config, key.replace("/", "."))
    return "default" if value is None or isinstance(value, Mapping) else str(value)


def resolved_config(run: Run) -> dict[str, str]:
    """{key: value} of a run's config with interpolations resolved, as its loggers wrote it.

    KEYS_OF_PLACE and KEYS_OF_MACHINE are left out, and the run's folder is RUN. The fingerprints of the data and of the
    file of the backbone's weights are added.
    """
    config = _mapping(_read_yaml(run.folder / "hparams.yaml"))
    place = str(config.get("paths.run_dir") or run.folder)
    kept = {str(k): str(v).replace(place, "RUN") for k, v in config.items()}
    left_out = KEYS_OF_PLACE + KEYS_OF_MACHINE
    kept = {k: v for k, v in kept.items() if not k.startswith(left_out)}
    prints = {DATA: run.status.get("data_fingerprint"), WEIGHTS_FILE: run.status.get("weights_fingerprint")}
    return kept | {key: str(value) for key, value in prints.items() if value is not None}


def _pair(text: str) -> tuple[str, str]:
    key, _, value = str(text).lstrip("+~").partition("=")
    return key, value


def _read_yaml(path: Path) -> Any:
    try:
        return read_yaml(path) or {}
    except ForeignFileError:
        return {}
