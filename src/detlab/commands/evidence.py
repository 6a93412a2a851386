"""detlab evidence: run the sweeps of a list of questions, keep what their verdicts follow from, write the page."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from detlab.commands.ablate import Request, read_request
from detlab.commands.preview import refusals
from detlab.commands.report import flag, split_arguments
from detlab.commands.words import answer_words
from detlab.config.ablation import Ablation
from detlab.config.compose import plain_config
from detlab.config.resolvers import missing_pretrained
from detlab.errors import ConfigError
from detlab.report.evidence import PICTURE, Claim, differences, evidence_page, read_claims
from detlab.report.kept import Kept, facts_of_run, read_kept, used_seeds, write_kept
from detlab.report.results import Measured, measure, row_of
from detlab.report.runs import find_runs
from detlab.sweeps.process import launcher_environment, quoted
from detlab.system.files import write_whole
from detlab.system.foreign import ForeignFileError, read_json_bounded
from detlab.system.printing import say

USAGE = "detlab evidence docs/evidence"
OPTIONS = {
    "run": "false: run nothing, read the runs that there are, and write the page; true",
    "only": "names of claims to run, with commas; all",
    "data": "names of a claim's data to run, such as blood_cells, with commas; all",
    "n_jobs": "jobs at once; 1",
    "out": "folder of the sweeps' runs; outputs/evidence",
    "checkpoints": "true: keep those of finished jobs, some hundred MB each; false",
    "trainer": "trainer of every job, such as gpu; each budget's own",
    "bccd": "folder of the blood cells, for sweeps with data.root={bccd}; without it these are left out",
}
PLACES = ("bccd",)  # options that fill in {NAME} in a claim's overrides
HELP = (
    f"usage: {USAGE} [KEY=VALUE ...]\n\n"
    "Runs the sweeps of FOLDER/claims.yaml one after the other, four to eight seeds a row; the same command goes on\n"
    "after an interruption. Keeps in FOLDER what the verdicts follow from, and writes FOLDER.md.\n\n"
    + "\n".join(f"  {key:11} {text}" for key, text in OPTIONS.items())
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, keep, write; returns the exit status."""

    def act(words: list[str]) -> int:
        folders, options = split_arguments(words, OPTIONS)
        if len(folders) != 1:
            raise ConfigError("detlab evidence takes one folder with a claims.yaml, such as docs/evidence.")
        return answer_all(folders[0], options)

    return answer_words(arguments, HELP, act)


def answer_all(folder: Path, options: Mapping[str, str]) -> int:
    """Answer the claims of a folder.

    Returns:
        Exit status: 0, 1 if a job failed, or the status of a sweep that ended otherwise.
    """
    claims, worst = read_claims(folder), 0
    chosen = _chosen("only", options, [claim.name for claim in claims])
    chosen_data = _chosen("data", options, list(dict.fromkeys(data for claim in claims for data in claim.sweeps)))
    running = flag("run", options.get("run", "true"))
    for claim in claims:
        for data in claim.sweeps:
            read_kept(claim.stem(folder, data))  # damage is told before a sweep runs
    sweeps = [(claim, data) for claim in claims if claim.name in chosen for data in claim.sweeps if data in chosen_data]
    if claims and not sweeps:
        wanted = f"only={options['only']} data={options['data']}"
        raise ConfigError(f"{wanted}: none of these claims has a sweep on that data.")
    check_places(options)
    keeping = flag("checkpoints", options.get("checkpoints", "false"))
    place = Path(options.get("out", "outputs/evidence"))
    jobs = options.get("n_jobs", "1")
    if not jobs.isdecimal() or not int(jobs):
        raise ConfigError(f"n_jobs={jobs} must be a whole number from 1 on.")
    planned: list[tuple[Claim, str, list[str], Request]] = []
    for claim, data in sweeps:
        if (words := filled(claim, data, options)) is None:
            say(f"left out    {claim.name} on {data}: it needs {_missing(claim, data, options)}")
            continue
        sweep = (place / f"{claim.name}-{data}").absolute()
        words += [f"trainer={options['trainer']}"] if "trainer" in options else []
        words = [*words, f"hydra.sweep.dir={quoted(sweep)}", f"hydra.launcher.n_jobs={jobs}", "probe=false"]
        planned.append((claim, data, words, _request(claim, data, words, running)))
    if sweeps and not planned:
        raise ConfigError("Every sweep was left out; give bccd=PATH, the folder of the blood cells.")
    for claim, data, words, request in planned:
        if running:
            say(f"claim       {claim.name} on {data}: {claim.question}")
            status = subprocess.run(
                [sys.executable, "-m", "detlab.commands.ablate", *words], env=launcher_environment(), check=False
            ).returncode
            if status not in (0, 1):
                return status
            worst = max(worst, status)
            if not keeping:
                drop_checkpoints(request.ablation.folder)
        if keep(folder, claim, data, request):
            write_page(folder, claims)
    page = write_page(folder, claims)
    say(f"page        {page}")
    return worst


def _request(claim: Claim, data: str, words: Sequence[str], running: bool) -> Request:
    """A sweep's request, checked before the first sweep runs; mistakes name the claim."""
    try:
        request = read_request(words)
        if running:
            composed = [request.ablation.composed(row) for row in request.ablation.rows]
            refusals([plain_config(config) for config in composed])
            for config in composed:
                check_begins(config)
            check_folder(request.ablation)
    except ConfigError as error:
        raise ConfigError(f"{claim.name} on {data}: {error}") from error
    return request


def check_begins(config: DictConfig) -> None:
    """Refuse a job whose pretrained backbone was not made: it would begin from random weights.

    Raises:
        ConfigError: there is no such file.
    """
    if (file := missing_pretrained(config)) is not None:
        depth = config.model.backbone.depth
        raise ConfigError(
            f"its jobs begin from {file}, which is not there; run `detlab pretrain model/backbone=resnet{depth}`, or "
            f"give the sweep model.backbone.weights=null to begin from random weights."
        )


def check_places(options: Mapping[str, str]) -> None:
    """Refuse a folder of data that is none, before any sweep runs.

    Raises:
        ConfigError: it is no folder, or empty.
    """
    for name in PLACES:
        folder = Path(options.get(name) or "/dev/null")
        if name in options and not (folder.is_dir() and any(folder.iterdir())):
            raise ConfigError(f"{name}={options[name]} must be a folder with files; give the folder of the data.")


def check_folder(ablation: Ablation) -> None:
    """Refuse a folder whose runs have other options than the claim, to which they would be credited.

    Raises:
        ConfigError: a finished run has other options.
    """
    if other := other_options(ablation):
        raise ConfigError(
            f"{ablation.folder} has runs of other options than the claim: {', '.join(other)}; move it away, or give "
            f"another out=FOLDER."
        )


def other_options(ablation: Ablation) -> list[str]:
    """Options that a finished run of a sweep's folder has and its claim lacks, or the other way round.

    The device is free, as are runs that no launcher recorded.
    """
    free = {*ablation.axes, "seed", "trainer"}

    def fixed(words: Sequence[str]) -> set[str]:
        return {word for word in words if word.partition("=")[0] not in free}

    other: set[str] = set()
    for run in find_runs([ablation.folder]) if ablation.folder.is_dir() else ():
        with contextlib.suppress(ForeignFileError, OSError):
            job = read_json_bounded(run.folder / "job.json")
            words = job.get("overrides") if isinstance(job, dict) else None
            if run.done and isinstance(words, list) and all(isinstance(word, str) for word in words):
                other |= fixed(words) ^ fixed(ablation.shared)
    return sorted(other)


def _chosen(key: str, options: Mapping[str, str], known: Sequence[str]) -> Sequence[str]:
    names = [name for name in options.get(key, "").split(",") if name]
    if key in options and not names:
        raise ConfigError(f"{key}= names nothing; leave it out for all, or give {key}={','.join(known)}.")
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}={name} is unknown; there are {', '.join(known)}.")
    return names or known


def filled(claim: Claim, data: str, options: Mapping[str, str]) -> list[str] | None:
    """Words of a claim's command with {NAME} filled in from the options; None if one is not given."""
    if _missing(claim, data, options):
        return None
    words = claim.command(data)
    for name in PLACES:
        words = [word.replace(f"{{{name}}}", quoted(Path(options.get(name, "")).absolute())) for word in words]
    return words


def _missing(claim: Claim, data: str, options: Mapping[str, str]) -> str:
    wanted = [name for name in PLACES if any(f"{{{name}}}" in word for word in claim.sweeps[data])]
    return ", ".join(f"{name}=PATH" for name in wanted if name not in options)


def keep(folder: Path, claim: Claim, data: str, request: Request) -> bool:
    """Keep what a sweep's verdicts follow from; False if it has no runs, or is unfinished and fewer than before."""
    ablation = request.ablation
    if other := other_options(ablation):
        say(f"not kept    {claim.name} on {data}: {ablation.folder} has runs of other options, {', '.join(other)}")
        return False
    measured = measure(ablation.folder, ablation.rows, request.seeds, ablation.metric)
    count = used_seeds(measured)
    if not count:
        return False
    draws = None if measured.draws is None else measured.draws[:, :count]
    runs = []
    for run in find_runs([ablation.folder]):
        row = row_of(run, ablation.rows)
        if run.done and row is not None and run.seed in request.seeds[:count]:
            runs.append(facts_of_run(run, row))
    facts = {
        "command": claim.command_line(data),
        "answer": ablation.answer,
        "rows": ablation.rows,
        "seeds": list(request.seeds[:count]),
        "min_seeds": request.min_seeds,
        "max_seeds": request.max_seeds,
        "runs": sorted(runs, key=lambda run: (run["row"], run["seed"])),
    }
    answer = Kept(replace(measured, values=measured.values[:, :count], draws=draws), facts)
    before = read_kept(claim.stem(folder, data))
    here, there = runs_of(measured), 0 if before is None else runs_of(before.measured)
    least = there if before is not None and before.facts["rows"] == ablation.rows else least_runs(request)
    if before is not None and answer.goes_on and here < least:
        say(f"not kept    {claim.name} on {data}: {ablation.folder} has {here} runs, {folder} the answer of {there}")
        return False
    write_kept(claim.stem(folder, data), answer.measured, facts)
    return True


def runs_of(measured: Measured) -> int:
    """Number of runs that have a value."""
    return int(np.isfinite(measured.values).sum())


def least_runs(request: Request) -> int:
    """Runs at the first look of a sweep."""
    return len(request.ablation.rows) * (request.min_seeds or 1)


def drop_checkpoints(sweep: Path) -> None:
    """Delete the checkpoints of a sweep's finished jobs, whose verdicts follow from their detections.

    Nothing outside the sweep's folder is touched, where links may lead.
    """
    top = sweep.resolve()
    for run in find_runs([sweep]):
        if run.done:
            for file in (f for f in run.folder.rglob("*.ckpt") if f.resolve().is_relative_to(top)):
                file.unlink()


def write_page(folder: Path, claims: Sequence[Claim]) -> Path:
    """Write FOLDER.md and its picture; returns the page's path."""
    from detlab.drawing import plots

    page = folder.absolute().parent / f"{folder.absolute().name}.md"
    if groups := differences(folder.absolute(), claims):
        write_whole(folder.absolute() / PICTURE, plots.png(plots.differences(groups)))
    write_whole(page, evidence_page(folder.absolute(), claims).encode())
    return page


if __name__ == "__main__":
    sys.exit(main())
