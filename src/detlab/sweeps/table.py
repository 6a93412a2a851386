"""Show the jobs of a sweep: a live table on a terminal, one line per event elsewhere, and a summary at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from detlab.config.overrides import short_names
from detlab.sweeps.job import GOOD, OPEN, Job, read_progress
from detlab.system.printing import PlainConsole
from detlab.system.text import shown

STYLES = {"done": "green", "running": "cyan", "queued": "dim", "pruned": "yellow"}
AT_MOST = 24  # largest number of rows in the live table; running and failed jobs come first


class SweepTable:
    """Shows jobs while they run.

    Args:
        jobs: a list that may grow.
        console: console for the output.
    """

    def __init__(self, jobs: Sequence[Job], console: Console | None = None) -> None:
        self.jobs, self.console = jobs, console or PlainConsole()
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if sys.stdout.isatty() else None

    def __enter__(self) -> SweepTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def tick(self) -> None:
        """Redraw the table."""
        if self._live:
            self._live.update(self._render(), refresh=True)

    def changed(self, job: Job) -> None:
        """Show that a job began or ended."""
        if self._live:
            self.tick()
            return
        parts = [f"job {job.number}", job.state, _choices(job.choices)]
        if job.value is not None and job.state not in OPEN:
            parts.append(f"{job.monitor} {job.value:.3f}")
        if job.state != "running":
            parts.append(f"{job.seconds:.0f} s")
        if job.reason:
            parts.append(job.reason)
        self.console.print("  ".join(parts), soft_wrap=True)

    def _render(self) -> Table:
        rank = {"running": 0, "failed": 1, "refused": 1, "timeout": 1, "stopped": 1, "queued": 2}
        shown = sorted(self.jobs, key=lambda j: rank.get(j.state, 3))[:AT_MOST]
        counts = Counter(job.state for job in self.jobs)
        title = ", ".join(f"{n} {state}" for state, n in counts.items())
        return job_table(sorted(shown, key=lambda j: j.number), title)


def job_table(jobs: Sequence[Job], title: str) -> Table:
    """Jobs as rows: number, choices, state, epoch, step, metric, time."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.choices))
    names = short_names(keys)
    table = Table(title=plain(title))
    table.add_column("job", justify="right")
    for key in keys:
        table.add_column(plain(names[key]))
    for name in ("state", "epoch", "step", "metric", "seconds"):
        table.add_column(name, justify="left" if name == "state" else "right")
    for job in jobs:
        progress = read_progress(job.folder) if job.state != "queued" else None
        epoch = "" if progress is None or progress.epoch is None else f"{progress.epoch + 1}/{job.epochs or '?'}"
        step = "" if progress is None or progress.step is None else f"{progress.step:,}"
        last = progress.last if progress is not None and job.state == "running" else job.value
        row = [str(job.number), *(job.choices.get(key, "") for key in keys)]
        row += [job.state + (" before" if job.earlier else ""), epoch, step, "" if last is None else f"{last:.3f}"]
        row.append(f"{job.seconds:.0f}" if job.seconds else "")
        table.add_row(*map(plain, row), style=STYLES.get(job.state, "red"))
    return table


def print_summary(jobs: Sequence[Job], folder: str, seconds: float, console: Console | None = None) -> None:
    """Print the final table and what to do next."""
    console = console or PlainConsole()
    counts = Counter(job.state for job in jobs)
    title = (", ".join(f"{n} {state}" for state, n in counts.items()) or "no job") + f" in {seconds:.0f} s"
    metric = next((job.monitor for job in jobs if job.monitor), None)
    console.print(job_table(jobs, title + (f"; metric: best {metric}" if metric else "")))
    for reason in dict.fromkeys(job.reason for job in jobs if job.reason):
        numbers = ", ".join(str(job.number) for job in jobs if job.reason == reason)
        for line in f"job {numbers}  {reason}".splitlines():
            console.print(plain(line), soft_wrap=True)
    failed = [job for job in jobs if job.state not in GOOD]
    for job in failed[:5]:
        if job.traceback:
            console.print()
            console.print(f"job {job.number}  {job.folder}/job.log", style="red", soft_wrap=True)
            for line in job.traceback.splitlines():
                console.print(line, soft_wrap=True)
    if failed:
        console.print("The same command again runs what is missing or failed, and leaves the rest alone.")
    console.print(plain(f"sweep folder  {folder}"), soft_wrap=True)
    console.print(plain(f"report        detlab report {folder}"), soft_wrap=True)


def print_front(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the Pareto front of a search's trials (search.json), the best in the first objective first."""
    front = [trial for trial in found["trials"] if trial["front"]]
    keys = list(dict.fromkeys(key for trial in front for key in trial["choices"]))
    names, first = short_names(keys), next(iter(found["objectives"]))
    table = Table(title=plain(f"Pareto front: {len(front)} of {len(found['trials'])} trials"))
    for key, direction in found["objectives"].items():
        table.add_column(plain(f"{key} ({direction})"), justify="right")
    for key in keys:
        table.add_column(plain(names[key]))
    table.add_column("folder")
    highest = found["objectives"][first] == "maximize"
    for trial in sorted(front, key=lambda t: t["values"][first], reverse=highest):
        cells = [f"{value:.4g}" for value in trial["values"].values()]
        cells += [trial["choices"].get(key, "") for key in keys]
        table.add_row(*map(plain, [*cells, Path(trial["folder"] or "").name]))
    (console or PlainConsole()).print(table)


def plain(text: str) -> Text:
    """Literal text: no markup, no colours, control characters escaped."""
    return Text(shown(text))


def _choices(choices: dict[str, str]) -> str:
    names = short_names(list(choices))
    return " ".join(f"{names[key]}={value}" for key, value in choices.items())
