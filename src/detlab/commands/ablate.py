"""detlab ablate: answer a question by a sweep: preview it, run its jobs, test which differences are real."""

from __future__ import annotations

import difflib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from detlab.commands.preview import preview, wide_console
from detlab.commands.words import OWN, answer_words, joined_flag, own_folder
from detlab.config.ablation import Ablation, plan_ablation
from detlab.config.overrides import short_names
from detlab.config.typed import check_once
from detlab.errors import ConfigError
from detlab.report.intervals import Contrast, contrasts
from detlab.report.planned import Plan, write_plan
from detlab.report.results import Measured, measure
from detlab.report.rounds import Look, looks, seeds_wanted, weights_beside_first
from detlab.runs.folder import claim, give_back
from detlab.sweeps.options import flag, one_of, whole
from detlab.sweeps.process import launcher_environment
from detlab.sweeps.table import plain
from detlab.system.text import complain

USAGE = "detlab ablate neck budget=cpu until=decided"
OPTIONS = {
    "until": "decided: add one seed at a time to undecided rows, until each is found better or worse than the first "
    "row; null: run the seeds of the ablation, or of seed=0,1,2",
    "min_seeds": "with until=decided, number of seeds per row before the first verdict; 2",
    "max_seeds": "with until=decided, largest number of seeds per row; 8",
    "preview": "true: print what would run and which difference could be found, and run nothing",
    "probe": "false: preview without timing a few steps of each row",
}
HELP = (
    "usage: detlab ablate NAME [--config-dir=FOLDER] [KEY=VALUE ...]\n\nNAME is a file of conf/ablation, or of "
    "FOLDER/ablation, your own options; without it, keys with several choices are the sweep.\n"
    "Beside the options of detlab train, budget=cpu among them:\n\n"
    + "\n".join(f"  {key:10} {text}" for key, text in OPTIONS.items())
)
ROUNDS = ".rounds"  # a folder in the sweep's, locked from the end of the first round to that of the command
PAGE_EVERY = 30.0  # seconds between updates of the report page while jobs run


@dataclass(frozen=True)
class Request:
    """A parsed command line."""

    ablation: Ablation
    until_decided: bool
    min_seeds: int
    max_seeds: int
    preview: bool
    probe: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that may run."""
        ablation = self.ablation
        return ablation.seeds_up_to(self.max_seeds) if self.until_decided else ablation.seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Preview, run, report; returns the exit status."""

    def act(words: list[str]) -> int:
        request = read_request(words)
        first = request.min_seeds if request.until_decided else None
        preview(request.ablation, request.seeds, first=first, probe=request.probe)
        return 0 if request.preview else answer(request)

    return answer_words(arguments, HELP, act)


def read_request(words: Sequence[str]) -> Request:
    """Parse and check a command line.

    Raises:
        ConfigError: an option has the wrong type, or the sweep is not valid.
    """
    words = joined_flag(words)
    folders = [own_folder(word.partition("=")[2]) for word in words if word.startswith(f"{OWN}=")]
    words = [word for word in words if not word.startswith(f"{OWN}=")]
    names = [word for word in words if "=" not in word and not word.startswith("-")]
    flags = [word for word in words if word.startswith("-")]
    if flags == ["--cfg"] and names[-1:] == ["job"]:  # as in detlab train: show the sweep without running it
        names, flags, words = names[:-1], [], [*words, "preview=true"]
    if OWN in flags:
        raise ConfigError(f"{OWN} needs the folder of your own options; write {OWN}=FOLDER.")
    if flags:
        raise ConfigError(f"detlab ablate has no {flags[0]}; preview=true shows what it would run.")
    if len(names) > 1:
        raise ConfigError(f"detlab ablate takes one ablation, not {' and '.join(names)}; give each a command.")
    check_once(word for word in words if word.partition("=")[0] in OPTIONS)
    pairs = dict(word.partition("=")[::2] for word in words if "=" in word)
    own = {key: _value(pairs[key]) for key in OPTIONS if key in pairs}
    others = [word for word in words if "=" in word and word.partition("=")[0] not in OPTIONS]
    for key in (word.partition("=")[0] for word in others):
        if near := difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.8):
            raise ConfigError(f"detlab ablate has no option {key}; did you mean {near[0]}?")
    if own.get("until") is not None:
        one_of("until", own["until"], ("decided",))
    max_seeds = whole("max_seeds", own.get("max_seeds", 8), least=2) or 8
    min_seeds = whole("min_seeds", own.get("min_seeds", 2), least=2) or 2
    ablation = plan_ablation(names[0] if names else "", others, folders[-1] if folders else None)
    for key in ("min_seeds", "max_seeds"):
        if key in own and own.get("until") is None:
            raise ConfigError(f"{key} is for until=decided; without it, seed=0,1,2 names the seeds.")
    if min_seeds > max_seeds:
        raise ConfigError(f"min_seeds={min_seeds} is more than max_seeds={max_seeds}; give it at most {max_seeds}.")
    return Request(
        ablation=ablation,
        until_decided=own.get("until") == "decided",
        min_seeds=min_seeds,
        max_seeds=max_seeds,
        preview=flag("preview", own.get("preview", False)),
        probe=flag("probe", own.get("probe", True)),
    )


def _value(text: str) -> object:
    """Parse a word like a plain YAML scalar: null, true, false, a whole number, or text."""
    words: dict[str, object] = {"null": None, "true": True, "false": False}
    return words.get(text.lower(), int(text) if text.lstrip("-").isdecimal() else text)


def answer(request: Request) -> int:
    """Run rounds of jobs until no seeds are missing, and print the verdicts.

    Returns:
        Exit status: 0, 1 if any job failed, or the launcher's own status if it ended otherwise.
    """
    try:
        return _rounds(request)
    finally:
        give_back(request.ablation.folder / ROUNDS)


def _rounds(request: Request) -> int:
    """Run rounds of jobs until no seeds are missing.

    A lock tells `detlab report follow=true` between two rounds, when no job runs, that the sweep goes on.
    """
    ablation, seeds, stuck, worst = request.ablation, request.seeds, set[int](), 0
    plan = Plan(seeds, request.min_seeds) if request.until_decided else None
    while True:
        write_plan(ablation.folder, plan)  # there is no folder before the first round
        measured = measure(ablation.folder, ablation.rows, seeds, ablation.metric)
        found = looks_at(request, measured)
        wanted = _wanted(request, measured, found[-1] if found else None, stuck)
        if not any(wanted.values()):
            say_answer(request, measured, found[-1] if found else None)
            return worst
        if found:
            say_look(ablation, found[-1], wanted)
        status = launch(ablation, wanted, plan)
        if status not in (0, 1) and (ablation.folder / "report" / "index.html").is_file():
            write_page(ablation)  # which would go on reloading itself
        if status < 0:
            complain(f"the launcher was ended by signal {-status}; the same command goes on from here.")
            return 1
        if status not in (0, 1):
            return status
        if ablation.folder.is_dir():
            claim(ablation.folder / ROUNDS, holds=(), option="hydra.sweep.dir")
        worst = max(worst, status)
        again = measure(ablation.folder, ablation.rows, seeds, ablation.metric)
        stuck |= {row for row, tried in wanted.items() if tried and _missing(again, row, seeds, tried)}


def looks_at(request: Request, measured: Measured) -> list[Look]:
    """All looks that the runs allow; none without until=decided."""
    if not request.until_decided:
        return []
    most, least = len(request.seeds), request.min_seeds
    return looks(measured.values, measured.draws, most, images=measured.images, first=least)


def _wanted(request: Request, measured: Measured, look: Look | None, stuck: set[int]) -> dict[int, list[int]]:
    """{row: seeds that still have to run}."""
    seeds = request.seeds
    if request.until_decided:
        counts = seeds_wanted(measured.values, look, len(seeds), sorted(stuck), request.min_seeds)
    else:
        counts = [len(seeds)] * len(measured.values)
    have = np.isfinite(measured.values)
    return {
        row: [seeds[s] for s in range(count) if not have[row, s]] if row not in stuck else []
        for row, count in enumerate(counts)
    }


def _missing(measured: Measured, row: int, seeds: Sequence[int], tried: Sequence[int]) -> bool:
    return any(not np.isfinite(measured.values[row, seeds.index(seed)]) for seed in tried)


def launch(ablation: Ablation, wanted: Mapping[int, Sequence[int]], plan: Plan | None = None) -> int:
    """Run jobs with `detlab train -m` in the sweep's folder, passing signals on to it; returns its exit status."""
    rows = ablation.rows
    own = [] if ablation.own is None else ["--config-dir", str(ablation.own)]
    jobs = [ablation.job(rows[row], seed) for row, seeds in wanted.items() for seed in seeds]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "jobs.json"
        file.write_text(json.dumps(jobs))
        command = [
            sys.executable, "-m", "detlab.commands.train", "-m", *own, *ablation.shared, *ablation.launching,
            f"hydra.sweep.dir='{ablation.folder}'", f"hydra.sweeper.jobs='{file}'",
        ]  # fmt: skip
        # In its own session, so that Ctrl-C reaches only this process, which passes it on once.
        process = subprocess.Popen(command, env=launcher_environment(), start_new_session=True)
        before = {sent: signal.signal(sent, lambda number, _: process.send_signal(number))
                  for sent in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
        try:
            return _watch(process, ablation, plan)
        finally:
            for sent, handler in before.items():
                signal.signal(sent, handler)


def _watch(process: subprocess.Popen[bytes], ablation: Ablation, plan: Plan | None) -> int:
    """Wait for the launcher; update the page whenever jobs have ended."""
    seen = _results(ablation)
    while True:
        try:
            return process.wait(PAGE_EVERY)
        except subprocess.TimeoutExpired:
            now = _results(ablation)
            if now > seen:
                seen = now
                write_plan(ablation.folder, plan)
                write_page(ablation, reload=int(PAGE_EVERY))


def _results(ablation: Ablation) -> int:
    return sum(1 for _ in ablation.folder.glob("*/result.json"))


def write_page(ablation: Ablation, reload: int | None = None) -> Path | None:
    """Run `detlab report` on the finished runs; returns the page, or None if the report failed."""
    command = [sys.executable, "-m", "detlab.commands.report", str(ablation.folder), f"metric={ablation.metric}"]
    command += [f"reload={reload}"] if reload else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return ablation.folder / "report" / "index.html" if done.returncode == 0 else None


def say_look(ablation: Ablation, look: Look, wanted: Mapping[int, Sequence[int]]) -> None:
    """Print the verdicts so far and the number of jobs that run next."""
    console = wide_console()
    decided = len(look.verdicts) - len(look.open)
    title = f"{ablation.answer} after {look.seeds} seeds: {decided} of {len(look.verdicts)} decided"
    console.print(look_table(ablation.rows, look.found, look.verdicts, title))
    jobs = sum(len(seeds) for seeds in wanted.values())
    console.print(f"next        {jobs} jobs, of the rows that are open and the first", highlight=False)


def say_answer(request: Request, measured: Measured, look: Look | None) -> None:
    """Print the final verdicts, the number of runs, and the report page."""
    ablation, console = request.ablation, wide_console()
    found: Sequence[Contrast | None] = look.found if look else ()
    verdicts = look.verdicts if look else ()
    if not request.until_decided and len(ablation.rows) > 1:
        weights = weights_beside_first(range(len(ablation.rows) - 1), len(ablation.rows))
        found = contrasts(measured.values, measured.draws, weights, images=measured.images)
        verdicts = tuple(contrast.verdict if contrast else "" for contrast in found)
    title = f"{ablation.answer}, beside {row_text(ablation.rows[0])}"
    console.print(look_table(ablation.rows, found, verdicts, title))
    for text in (*([measured.why_no_draws] if measured.why_no_draws else []), *measured.mixed):
        console.print("note       ", plain(text), soft_wrap=True, highlight=False)
    runs = int(np.isfinite(measured.values).sum())
    console.print(f"runs        {runs} of at most {measured.values.size}", highlight=False)
    page = write_page(ablation)
    console.print(f"report      {page or f'detlab report {ablation.folder}'}", soft_wrap=True, highlight=False)


def look_table(
    rows: Sequence[Mapping[str, str]],
    found: Sequence[Contrast | None],
    verdicts: Sequence[str],
    title: str,
) -> Table:
    """Table of each row against the first: difference with interval, verdict, seeds, and runs needed to decide."""
    table = Table(title=plain(title))
    for name in ("row", "difference", "95 % interval", "verdict", "seeds", "would decide"):
        table.add_column(name, justify="left" if name in ("row", "verdict", "would decide") else "right")
    for row, contrast, verdict in zip(rows[1:], found, verdicts, strict=False):
        name = row_text(row)
        if contrast is None or contrast.value is None:
            table.add_row(plain(name), "", "", "no runs", "", "")
            continue
        span = "" if contrast.low is None else f"{contrast.low:+.3f} to {contrast.high:+.3f}"
        told = contrast.words if verdict not in ("better", "worse") else verdict
        cells = [
            name,
            f"{contrast.value:+.3f}",
            span,
            told,
            str(contrast.seeds),
            "" if verdict in ("better", "worse") else contrast.deciding,
        ]
        table.add_row(*map(plain, cells))
    return table


def row_text(row: Mapping[str, str]) -> str:
    """A row as one line of text."""
    names = short_names(list(row))
    return " ".join(f"{names[key]}={level}" for key, level in row.items())


if __name__ == "__main__":
    sys.exit(main())
