"""A page of questions and their measured answers, from claims.yaml and the kept sweeps beside it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detlab.config.overrides import short_names
from detlab.report.contents import metric_title
from detlab.report.escapes import for_markdown, markdown_code
from detlab.report.intervals import Contrast
from detlab.report.kept import Kept, read_kept
from detlab.report.runs import ReportError
from detlab.system.foreign import ForeignFileError, read_yaml

CLAIMS = "claims.yaml"
KEYS = ("name", "question", "paper", "ablation", "sweeps")
MORE = ("says", "beside")
BESIDE = {"latency_ms": "ms an image with NMS"}  # what a claim may show beside the metric: unit
SUM = {"better": "more than the sum", "worse": "less than the sum"}
PICTURE = "differences.png"  # in the folder of the claims
ABOUT = "about.md"  # in the folder of the claims, if there is one: what holds for these claims only
HEAD = """# The claims, answered

`detlab evidence {folder}` runs the sweeps, goes on after an interruption, and writes this page from `{folder}`:
questions and commands are in `claims.yaml`; two files per sweep hold its values, resampled values, config hashes,
commit and versions. With `run=false` it repeats every verdict from them, without the runs.

A row is one choice, a job one training of it with one seed; each row is compared with the first. A difference has a
95 % interval that covers seeds and test images; intervals are not corrected. Verdicts are corrected over the rows of
a sweep, and over the looks at a growing number of seeds{intervals}, not over sweeps. Where the
rows are a grid of two choices, *beyond the sum* is what both changes give beyond the sum of each alone; its verdicts
are corrected apart from those of the rows. A decided difference stays that of the seeds that decided it, while its rows
may get more. *Found from* is the smallest true difference that these runs would have found four times out of five. The
time of a job is the median over all runs; *with changes* marks runs from files that were not committed.
"""
LINK = " ([intervals.md](intervals.md))"
COLUMNS = (
    "question",
    "the paper",
    "data",
    "metric by row",
    "difference to the first row [95 %], verdict",
    "found from",
    "rows x seeds, a job",
    "what it says",
)


@dataclass(frozen=True)
class Claim:
    """A question with the sweeps that answer it.

    Attributes:
        name: of its files.
        question, paper: the question; what the paper reports, with its table.
        ablation: file in conf/ablation.
        sweeps: {data: overrides of its sweep}; `{NAME}` in an override is filled in from the command line, as in
            data.root={bccd}.
        says: {data: what the answer does and does not say}.
        beside: shown beside each row's metric, as the median over its runs, such as latency_ms; None for nothing.
    """

    name: str
    question: str
    paper: str
    ablation: str
    sweeps: Mapping[str, tuple[str, ...]]
    says: Mapping[str, str]
    beside: str | None = None

    def stem(self, folder: Path, data: str) -> Path:
        """Path of a sweep's kept files without their endings."""
        return folder / f"{self.name}-{data}"

    def command(self, data: str) -> list[str]:
        """Words of `detlab ablate`."""
        return [self.ablation, *self.sweeps[data], "until=decided", "min_seeds=4", "max_seeds=8"]

    def command_line(self, data: str) -> str:
        """The command as a shell takes it; `{NAME}` is left to be filled in."""
        return " ".join(shlex.quote(word) if "$" in word else word for word in self.command(data))


def read_claims(folder: Path) -> list[Claim]:
    """The claims of a folder.

    Raises:
        ReportError: claims.yaml is missing or damaged, or an entry lacks a key.
    """
    file = folder / CLAIMS
    try:
        entries = read_yaml(file)
    except ForeignFileError as error:
        raise ReportError(str(error)) from error
    if not isinstance(entries, list):
        raise ReportError(f"{file} must be a list of claims with {', '.join(KEYS)}.")
    claims = [_claim(entry, number, file) for number, entry in enumerate(entries, 1)]
    names = [claim.name for claim in claims]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ReportError(f"{file} has two claims called {twice}.")
    return claims


def _claim(entry: Any, number: int, file: Path) -> Claim:
    if not isinstance(entry, dict) or not {*KEYS} <= {*entry} <= {*KEYS, *MORE}:
        raise ReportError(f"{file}: claim {number} must have {', '.join(KEYS)}, and may have {' and '.join(MORE)}.")
    sweeps, says = entry["sweeps"], entry.get("says") or {}
    lists = isinstance(sweeps, dict) and sweeps and all(isinstance(words, list) for words in sweeps.values())
    if not lists or not isinstance(says, dict) or not {*says} <= {*sweeps}:
        raise ReportError(
            f"{file}: claim {number} needs sweeps: {{DATA: [OVERRIDE, ...]}}, and says: {{DATA: sentence}}."
        )
    if (beside := entry.get("beside")) not in (None, *BESIDE):
        raise ReportError(f"{file}: claim {number} has beside: {beside}; use {', '.join(BESIDE)}.")
    name, question, paper, ablation = (str(entry[key]) for key in KEYS[:4])
    if not all(text.isascii() and text.replace("_", "").isalnum() for text in (name, *map(str, sweeps))):
        raise ReportError(
            f"{file}: claim {number} is called {name}, on {', '.join(map(str, sweeps))}; use a to z, digits, _."
        )
    return Claim(
        name=name,
        question=question,
        paper=paper,
        ablation=ablation,
        sweeps={str(data): tuple(map(str, words)) for data, words in sweeps.items()},
        says={str(data): str(text) for data, text in says.items()},
        beside=beside,
    )


def evidence_page(folder: Path, claims: Sequence[Claim]) -> str:
    """The page as Markdown.

    Raises:
        ReportError: a kept file is damaged.
    """
    kept = {(c.name, data): read_kept(c.stem(folder, data)) for c in claims for data in c.sweeps}
    answered = [key for key, found in kept.items() if found is not None and found.look is not None]
    link = LINK if (folder.parent / "intervals.md").is_file() else ""
    lines = [HEAD.format(folder=f"{folder.absolute().parent.name}/{folder.name}", intervals=link)]
    if (folder / ABOUT).is_file():
        lines.append((folder / ABOUT).read_text(encoding="utf-8"))
    questions = sum(any(key[0] == c.name for key in answered) for c in claims)
    told = f"Measured: {questions} of {len(claims)} questions, {len(answered)} of {len(kept)} sweeps."
    if stopped := sum(found.goes_on for key in answered if (found := kept[key]) is not None):
        told += f" {stopped} were stopped while a row was undecided; the same command goes on with them."
    lines.append(f"{told}\n")
    if answered:
        lines.append(f"![Differences to the first rows, with their intervals]({folder.name}/{PICTURE})\n")
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for claim in claims:
        lines += [_line(claim, data, kept[claim.name, data]) for data in claim.sweeps]
    lines.append("\n## Commands and runs\n")
    for claim in claims:
        for data in claim.sweeps:
            lines.append(_source(claim, data, kept[claim.name, data]))
    return "\n".join(lines) + "\n"


def differences(folder: Path, claims: Sequence[Claim]) -> dict[str, list[tuple[str, float, float, float, str]]]:
    """{question, data and first row: (row, difference, low and high end, verdict)} of every answered sweep.

    Raises:
        ReportError: a kept file is damaged.
    """
    shown = {}
    for claim in claims:
        for data in claim.sweeps:
            found = read_kept(claim.stem(folder, data))
            if found is None or (look := found.look) is None:
                continue
            first, *others = _plain_names(found)
            rows = [
                (name, c.value, c.value if c.low is None else c.low, c.value if c.high is None else c.high, verdict)
                for name, c, verdict in zip(others, look.found, look.verdicts, strict=True)
                if c is not None and c.value is not None
            ]
            title = metric_title(found.facts["answer"].removeprefix("test/"))
            shown[f"{claim.question} ({data}; {title} beside {first})"] = rows
    return shown


def _line(claim: Claim, data: str, found: Kept | None) -> str:
    look = None if found is None else found.look
    first = [for_markdown(claim.question), for_markdown(claim.paper), for_markdown(data)]
    if found is None or look is None:
        state = "not run yet" if found is None else f"{len(found.facts['runs'])} runs, too few seeds"
        return f"| {' | '.join([*first, state, '', '', '', ''])} |"
    names, values = _row_names(found), found.measured.values
    title = for_markdown(metric_title(found.facts["answer"].removeprefix("test/")))
    rows = zip(names, values, _costs(found, claim.beside), strict=True)
    means = "<br>".join(f"{name} {_mean(row)}{cost}" for name, row, cost in rows)
    changes = [_change(contrast, verdict) for contrast, verdict in zip(look.found, look.verdicts, strict=True)]
    told = "<br>".join(f"{name} {change}" for name, change in zip(names[1:], changes, strict=True))
    for choices, contrast in found.interactions():
        told += (
            f"<br>*beyond the sum* {for_markdown(_named(found, choices))} {_change(contrast, contrast.verdict, SUM)}"
        )
    sizes = [c.detectable for c in look.found if c is not None and c.detectable]
    smallest = f"{min(sizes):.3f}" + (f" to {max(sizes):.3f}" if len(sizes) > 1 else "") if sizes else ""
    seeds = np.isfinite(values).sum(1)
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    spent = [run["seconds"] for run in found.facts["runs"] if isinstance(run.get("seconds"), int | float)]
    time = f", {np.median(spent):.0f} s" if spent else ""
    state = f" (stopped before {found.facts['max_seeds']} seeds)" if found.goes_on else ""
    cells = [*first, f"{title}: {means}", told, smallest, f"{len(values)} x {span}{state}{time}"]
    return f"| {' | '.join([*cells, for_markdown(claim.says.get(data, ''))])} |"


def _row_names(found: Kept) -> list[str]:
    return [for_markdown(name) for name in _plain_names(found)]


def _plain_names(found: Kept) -> list[str]:
    return [_named(found, row) for row in found.facts["rows"]]


def _named(found: Kept, choices: Mapping[str, str]) -> str:
    """Choices by short names; those that all rows share stand in the command only."""
    levels: dict[str, set[str]] = {}
    for row in found.facts["rows"]:
        for key, level in row.items():
            levels.setdefault(key, set()).add(level)
    told = [key for key in levels if len(levels[key]) > 1] or list(levels)
    names = short_names(told)
    return " ".join(f"{names[key]}={level}" for key, level in choices.items() if key in names)


def _costs(found: Kept, beside: str | None) -> list[str]:
    """What is shown beside the metric of each row: the median over its runs."""
    told = []
    for number in range(len(found.facts["rows"])):
        own = [run.get(beside) for run in found.facts["runs"] if beside and run.get("row") == number]
        numbers = [value for value in own if isinstance(value, int | float)]
        told.append(f" ({np.median(numbers):.1f} {BESIDE[str(beside)]})" if numbers else "")
    return told


def _mean(values: Any) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.3f}" if len(finite) else "no runs"


def _change(contrast: Contrast | None, verdict: str, words: Mapping[str, str] | None = None) -> str:
    if contrast is None or contrast.value is None:
        return "no runs"
    span = "" if contrast.low is None else f" [{contrast.low:+.3f}, {contrast.high:+.3f}]"
    decided = verdict in ("better", "worse")
    told = f"**{(words or {}).get(verdict, verdict)}**" if decided else "not distinguishable"
    more = f" ({contrast.deciding} would decide)" if not decided and contrast.deciding else ""
    return f"{contrast.value:+.3f}{span} {told}{more}"


def _source(claim: Claim, data: str, found: Kept | None) -> str:
    words = claim.command_line(data) if found is None else str(found.facts["command"])
    words = re.sub(r"\{\w+\}", "PATH", words)
    line = f"- {for_markdown(claim.question)} ({for_markdown(data)}): {markdown_code(f'detlab ablate {words}')}"
    if found is None:
        return line
    runs = found.facts["runs"]
    commits = sorted({for_markdown(_short(str(run.get("commit", "")))) for run in runs})
    weights = sorted({for_markdown(str(run["weights"])) for run in runs if run.get("weights")})
    packages = [run.get("packages") for run in runs if isinstance(run.get("packages"), dict)]
    torch = sorted({for_markdown(str(p.get("torch"))) for p in packages})
    told = f"{_where(found)}, torch {', '.join(torch)}, commit {', '.join(commits)}"
    return f"{line}; {told}" + (f", weights {', '.join(weights)}" if weights else "")


def _short(commit: str) -> str:
    """The first digits of a commit, and that files had changed since."""
    digits, *more = commit.split(" ", 1)
    return " ".join([digits[:12], *more])


def _where(found: Kept) -> str:
    """How many runs ran on which device, in Markdown; by row if the devices differ."""
    runs = found.facts["runs"]
    on = [for_markdown(str(run.get("device", ""))) for run in runs]
    devices = sorted({*on})
    if len(devices) == 1:
        return f"{len(runs)} runs on {devices[0]}"
    told = []
    for number, name in enumerate(_row_names(found)):
        own = Counter(device for device, run in zip(on, runs, strict=True) if run.get("row") == number)
        where = " and ".join(f"{own[device]} on {device}" for device in devices if own[device])
        told.append(f"{name} {where or 'none'}")
    return f"{len(runs)} runs ({'; '.join(told)})"
