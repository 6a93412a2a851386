"""detlab evidence: run the sweeps of a list of questions, keep what their verdicts follow from, write the page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from detlab.commands.ablate import Request, read_request
from detlab.commands.preview import refusals
from detlab.commands.report import flag, split_arguments
from detlab.commands.words import answer_words
from detlab.config.compose import plain_config
from detlab.config.resolvers import missing_pretrained
from detlab.errors import ConfigError
from detlab.report.evidence import PICTURE, Claim, differences, evidence_page, read_claims
from detlab.report.kept import facts_of_run, used_seeds, write_kept
from detlab.report.results import measure, row_of
from detlab.report.runs import find_runs
from detlab.sweeps.process import launcher_environment, quoted
from detlab.system.files import write_whole
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
    sweeps = [(claim, data) for claim in claims if claim.name in chosen for data in claim.sweeps if data in chosen_data]
    if claims and not sweeps:
        wanted = f"only={options['only']} data={options['data']}"
        raise ConfigError(f"{wanted}: none of these claims has a sweep on that data.")
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


def _chosen(key: str, options: Mapping[str, str], known: Sequence[str]) -> Sequence[str]:
    names = [name for name in options.get(key, "").split(",") if name]
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}={name} is unknown; there are {', '.join(known)}.")
    return names or known


def filled(claim: Claim, data: str, options: Mapping[str, str]) -> list[str] | None:
    """Words of a claim's command with {NAME} filled in from the options; None if one is not given."""
    if _missing(claim, data, options):
        return None
    words = claim.command(data)
    for name in OPTIONS:
        words = [word.replace(f"{{{name}}}", quoted(Path(options.get(name, "")).absolute())) for word in words]
    return words


def _missing(claim: Claim, data: str, options: Mapping[str, str]) -> str:
    wanted = [name for name in OPTIONS if any(f"{{{name}}}" in word for word in claim.sweeps[data])]
    return ", ".join(f"{name}=PATH" for name in wanted if name not in options)


def keep(folder: Path, claim: Claim, data: str, request: Request) -> bool:
    """Keep what a sweep's verdicts follow from; False if it has no runs."""
    ablation = request.ablation
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
    write_kept(claim.stem(folder, data), replace(measured, values=measured.values[:, :count], draws=draws), facts)
    return True


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

    page = folder.absolute().with_suffix(".md")
    if groups := differences(folder.absolute(), claims):
        write_whole(folder.absolute() / PICTURE, plots.png(plots.differences(groups)))
    write_whole(page, evidence_page(folder.absolute(), claims).encode())
    return page


if __name__ == "__main__":
    sys.exit(main())
