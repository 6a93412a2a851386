"""Preview of a sweep: its jobs, their time, and the smallest difference that they could find."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from detlab.config.ablation import USUAL, Ablation
from detlab.config.facts import family
from detlab.config.overrides import short_names
from detlab.config.rules import check
from detlab.config.validate import validate
from detlab.errors import ConfigError
from detlab.metrics.summary import BY_CLASS, RECALL_AT, TITLES
from detlab.report.results import Measured, measure
from detlab.report.rounds import noise_of, smallest_difference
from detlab.sweeps.options import whole
from detlab.sweeps.slots import thread_share, visible_gpus
from detlab.sweeps.table import plain
from detlab.system.printing import PlainConsole
from detlab.system.text import duration
from detlab.system.workers import spawned_workers

PROBED = {"steps": 6, "batches": 2}  # training steps and evaluated batches timed for each row


@dataclass(frozen=True)
class Probe:
    """Time of a row's jobs, estimated from a few steps.

    Attributes:
        seconds: time of a whole job; None if not known.
        step: seconds per training step; None if not known.
        why: how the time was calculated, or why it is not known.
    """

    seconds: float | None
    step: float | None
    why: str


def preview(ablation: Ablation, seeds: Sequence[int], *, first: int | None, probe: bool) -> None:
    """Print rows, jobs, time and the smallest difference that can be found.

    Args:
        ablation: the sweep.
        seeds: all seeds that may run.
        first: seeds per row before the first verdict, after which seeds are added as needed; None: all seeds at once.
        probe: time a few steps of each row.

    Raises:
        ConfigError: an option of the launcher is wrong, every row is refused, or no row has the compared metric.
    """
    at_once = jobs_at_once(ablation)
    threads = whole("hydra.launcher.threads", ablation.threads, least=1, none="an equal share of the cores")
    threads = threads or (thread_share(at_once) if at_once > 1 else None)  # as the launcher gives its jobs
    configs = [ablation.config(row) for row in ablation.rows]
    check_answer(ablation, configs)
    configs = [config | {"threads": config["threads"] or threads} for config in configs]
    refused = refusals(configs)
    probes = [Probe(None, None, why) for why in refused]
    if probe:
        probes = [
            found if not why else Probe(None, None, why)
            for found, why in zip(probe_rows(configs, skip=[bool(why) for why in refused]), refused, strict=True)
        ]
    measured = measure(ablation.folder, ablation.rows, seeds, ablation.metric)
    console = wide_console()
    console.print(row_table(ablation, probes, probe))
    for name, text in facts(ablation, seeds, probes, measured, first).items():
        console.print(plain(f"{name:11} {text}"), soft_wrap=True)


def check_answer(ablation: Ablation, configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a metric that no row's final test has, before hours of jobs find out.

    Raises:
        ConfigError: with metrics that there are.
    """
    if any(may_have(config, ablation.metric) for config in configs):
        return
    kind = "ar_300, ar_small" if family(configs[0], "class_agnostic") else "map, map_50, map_small, ap/CLASS"
    raise ConfigError(
        f"answer={ablation.answer} is no metric of the final test of these rows; use answer=test/NAME, such as {kind}."
    )


def may_have(config: Mapping[str, Any], metric: str) -> bool:
    """Whether result.json of a run may have the metric; measures of your own may have any."""
    proposals = family(config, "class_agnostic")
    if proposals is None:
        return True
    measures = ((config.get("metrics") or {}).get("proposals" if proposals else "classes") or {}).values()
    if any(m and not str(m.get("_target_")).startswith("detlab.metrics.") for m in measures):
        return True
    shipped = metric in TITLES or RECALL_AT.fullmatch(metric) or metric.startswith(tuple(BY_CLASS))
    return bool(shipped) and metric.startswith("ar_") == bool(proposals)


def refusals(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Why each row is refused, "" where it is not.

    Raises:
        ConfigError: every row is refused, so that nothing could run.
    """
    refused = [refusal(config) for config in configs]
    if all(refused):
        raise ConfigError(f"Every row is {refused[0]}")
    return refused


def refusal(config: dict[str, Any]) -> str:
    """Why the launcher would refuse a config: a wrong type or value, or a rule; "" if it would not."""
    try:
        validate(config)
        check(config)
    except ConfigError as error:
        return f"refused: {error}"
    return ""


def row_table(ablation: Ablation, probes: Sequence[Probe], probed: bool) -> Table:
    """Table of the rows with the time of a job."""
    names = short_names(list(ablation.axes))
    table = Table(title=plain(f"{ablation.name or 'sweep'}: {len(probes)} rows"))
    for key in ablation.axes:
        table.add_column(plain(names[key]))
    table.add_column("step", justify="right")
    table.add_column("a job", justify="right")
    table.add_column("how the time comes about" if probed else "note")
    for row, probe in zip(ablation.rows, probes, strict=True):
        step = "" if probe.step is None else f"{probe.step:.3g} s"
        table.add_row(*map(plain, [*row.values(), step, duration(probe.seconds), probe.why]))
    return table


def facts(
    ablation: Ablation, seeds: Sequence[int], probes: Sequence[Probe], measured: Measured, first: int | None
) -> dict[str, str]:
    """{name: text} of the lines below the table."""
    rows, most = len(ablation.rows), len(seeds)
    done = int((measured.values == measured.values).sum())
    jobs = f"{rows} rows x {most} seeds = {rows * most}"
    if first:
        jobs = f"{rows * first} at first, {first} seeds a row; at most {jobs}"
    lines = {
        "question": question(ablation) or "which of these rows is better?",
        "answer": ablation.answer,
        "baseline": ", ".join(f"{key}={level}" for key, level in ablation.rows[0].items()),
        "jobs": jobs + (f"; {done} done before" if done else ""),
    }
    if fixed := ablation.fixed():
        lines["also sets"] = f"{', '.join(fixed)}: by ablation={ablation.name}, inside a part that the command chose"
    at_once = jobs_at_once(ablation)
    times = [probe.seconds for probe in probes if probe.seconds is not None]
    if times and len(times) == rows:
        side = f", {at_once} jobs at once" if at_once > 1 else ""
        begin = f"{duration(sum(times) * first / at_once)} for the first {first} seeds, at most " if first else ""
        lines["time"] = f"{begin}{duration(sum(times) * most / at_once)}{side}"
    lines["smallest"] = smallest(ablation, most, measured)
    lines["folder"] = str(ablation.folder)
    return lines


def jobs_at_once(ablation: Ablation) -> int:
    """Jobs that the launcher runs at once: `n_jobs`, or one per GPU.

    Raises:
        ConfigError: n_jobs is no whole number from 1 on.
    """
    given = whole("hydra.launcher.n_jobs", ablation.n_jobs, least=1, none="one per GPU, one on a CPU")
    return given or max(1, len(visible_gpus()))


def smallest(ablation: Ablation, seeds: int, measured: Measured) -> str:
    """The smallest difference that can be found, with the source of the noise estimate, in words."""
    noise, source = noise_of(measured.values, measured.draws), "by the runs there are"
    if noise is None and {"run", "image"} <= set(ablation.noise):
        noise, source = (float(ablation.noise["run"]), float(ablation.noise["image"])), "by the budget's measured_noise"
        if ablation.answer != USUAL:
            source += f", which is of {USUAL}, not of {ablation.answer}"
    if noise is None:
        return "not known before two seeds of a row are there (this budget has no measured_noise)"
    found = smallest_difference(*noise, rows=len(ablation.rows), seeds=seeds)
    if found is None:
        return "none: one seed decides nothing about a choice; use seed=0,1,2"
    return f"a true difference of {found:.3f} is found four times of five with {seeds} seeds ({source})"


def question(ablation: Ablation) -> str:
    """The question of an ablation: the comment in the third line of its file."""
    from detlab.config.compose import config_dir

    folders = [config_dir()] if ablation.own is None else [config_dir(), ablation.own]  # as Hydra looks
    files = [folder / "ablation" / f"{ablation.name}.yaml" for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    lines = [] if file is None else file.read_text().splitlines()
    return lines[2].lstrip("# ") if len(lines) > 2 else ""


def probe_rows(configs: Sequence[dict[str, Any]], skip: Sequence[bool]) -> list[Probe]:
    """Time a few steps and batches of each row in a separate process, which frees all memory when it ends."""
    found: list[Probe] = []
    console, start = PlainConsole(stderr=True), 0.0
    with spawned_workers(1) as pool, console.status("probing") as status:
        for number, (config, left_out) in enumerate(zip(configs, skip, strict=True), 1):
            if left_out:
                found.append(Probe(None, None, ""))
                continue
            status.update(f"probing row {number} of {len(configs)}")
            try:
                seconds, step, begun, how = pool.submit(probe_row, config | PROBED).result()
            except BrokenProcessPool:
                return [*found, *([Probe(None, None, "the probe's process died")] * (len(configs) - len(found)))]
            except Exception as error:  # any error, since it would end the row's job too
                found.append(Probe(None, None, f"its job would fail: {error}".splitlines()[0]))
                continue
            start = max(start, begun)  # only the first row includes the imports here, but every job needs them
            found.append(Probe(seconds, step, how))
    return [
        p if p.seconds is None else Probe(p.seconds + start, p.step, f"{p.why}, start {start:.0f} s") for p in found
    ]


def probe_row(config: dict[str, Any]) -> tuple[float, float, float, str]:
    """(seconds of a job without its start, of a step, of the start, the calculation in words), measured here."""
    begin = time.perf_counter()
    from detlab.commands.check import estimate, short_run
    from detlab.training.build import build
    from detlab.training.environment import set_up_torch
    from detlab.training.step_clock import StepClock
    from detlab.training.trainers import callbacks_of

    clock = StepClock()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # no lines about epochs inside the preview
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        set_up_torch(config)
        run = build(short_run(config))
        start = time.perf_counter() - begin
        callbacks_of(run.trainer).append(clock)
        run.trainer.fit(run.module, datamodule=run.data)
    seconds, how = estimate(config, run.data, clock.step, clock.image)
    return seconds, clock.step, start, how


def wide_console() -> Console:
    """A console at least 120 characters wide, so that tables keep their columns in a log file too."""
    return PlainConsole(width=max(PlainConsole().width, 120))
