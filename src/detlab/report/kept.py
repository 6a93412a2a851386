"""A sweep's answer in a few hundred kilobytes: enough to repeat its verdicts without its runs.

NAME.npz holds `values` [R, S] and `draws` [R, S, B] (float32; absent if the metric has none), NAME.json the rest.
R rows, S seeds, B resamples.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlab.report.analysis import LEVEL
from detlab.report.effects import interaction, pairs_of_changes
from detlab.report.intervals import Contrast, contrasts
from detlab.report.planned import Plan
from detlab.report.results import Measured
from detlab.report.rounds import Look, looks
from detlab.report.runs import ReportError, Run
from detlab.system.files import write_json, write_whole
from detlab.system.foreign import ForeignFileError, open_regular, read_json_bounded

DAMAGE = (
    ForeignFileError,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
MOST_BYTES = 64 * 2**20  # a larger file of arrays is refused


@dataclass(frozen=True)
class Kept:
    """What a verdict follows from.

    Attributes:
        measured: values, resampled values, number of images.
        facts: command, answer, rows (their choices), seeds, min_seeds, max_seeds, and one entry per run: row, seed,
            config_hash, commit, seconds, latency_ms, weights (fingerprint of their file), device, packages.
    """

    measured: Measured
    facts: Mapping[str, Any]

    @property
    def look(self) -> Look | None:
        """The last look at the rows beside the first; None before there are min_seeds seeds."""
        facts, measured = self.facts, self.measured
        most, least = int(facts["max_seeds"]), int(facts["min_seeds"])
        done = looks(measured.values, measured.draws, most, images=measured.images, first=least)
        return done[-1] if done else None

    @property
    def goes_on(self) -> bool:
        """Whether the sweep was stopped: a row is undecided with fewer than max_seeds seeds."""
        return (look := self.look) is None or (bool(look.open) and look.seeds < int(self.facts["max_seeds"]))

    def interactions(self) -> list[tuple[dict[str, str], Contrast]]:
        """({key: level} of two changes, what both give beyond the sum of each) where the rows are a grid.

        Verdicts are corrected over all interactions and over the looks at a growing number of seeds.
        """
        rows: list[dict[str, str]] = self.facts["rows"]
        keys = list(rows[0])
        if any(list(row) != keys for row in rows):
            return []
        places = {tuple(row.values()): number for number, row in enumerate(rows)}
        base, levels = tuple(rows[0].values()), [list(dict.fromkeys(row[key] for row in rows)) for key in keys]
        named, parts = [], []
        for f, g, a, b in pairs_of_changes(levels, base):
            if part := interaction(places, base, {f: a, g: b}):
                named.append({keys[f]: a, keys[g]: b})
                parts.append([part.get(number, 0.0) for number in range(len(rows))])
        if not parts:
            return []
        plan = Plan(tuple(range(int(self.facts["max_seeds"]))), int(self.facts["min_seeds"]))
        measured = self.measured

        def level(seeds: int) -> float:
            return plan.level(seeds, len(parts), LEVEL)

        found = contrasts(
            measured.values,
            measured.draws,
            parts,
            LEVEL,
            images=measured.images,
            verdict_level=level(int(np.isfinite(measured.values).sum(1).max())),
            later_level=level,
        )
        return list(zip(named, found, strict=True))


def facts_of_run(run: Run, row: int) -> dict[str, Any]:
    """What identifies a run: config, code, versions, machine, time."""
    git = run.status.get("git")
    commit = git.get("commit", "") if isinstance(git, dict) else ""
    return {
        "row": row,
        "seed": run.seed,
        "config_hash": run.status.get("config_hash", ""),
        "commit": f"{commit}{' with changes' if isinstance(git, dict) and git.get('dirty') else ''}",
        "seconds": run.budget.get("seconds"),
        "latency_ms": run.budget.get("latency_ms"),
        "weights": run.status.get("weights_fingerprint"),
        "device": run.status.get("device", ""),
        "packages": run.status.get("packages", {}),
    }


def write_kept(stem: Path, measured: Measured, facts: Mapping[str, Any]) -> None:
    """Write NAME.npz and NAME.json."""
    buffer = io.BytesIO()
    arrays = {"values": measured.values}
    if measured.draws is not None:
        arrays["draws"] = measured.draws.astype(np.float32)
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its keyword for pickles is no array
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_whole(stem.with_suffix(".npz"), buffer.getvalue())
    write_json(stem.with_suffix(".json"), {**facts, "images": measured.images, "why_no_draws": measured.why_no_draws})


def read_kept(stem: Path) -> Kept | None:
    """Read both files; None if neither exists.

    Raises:
        ReportError: one is missing or damaged.
    """
    files = [stem.with_suffix(end) for end in (".npz", ".json")]
    if not any(file.exists() for file in files):
        return None
    try:
        facts = read_json_bounded(files[1])
        with open_regular(files[0]) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ReportError(f"{files[0]} is larger than {MOST_BYTES >> 20} MB.")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values = np.asarray(arrays["values"], float)
            draws = np.asarray(arrays["draws"], float) if "draws" in arrays else None
        _check(values, draws, facts)
    except DAMAGE as error:
        if isinstance(error, ReportError):
            raise
        why = "no arrays of numbers" if "pickle" in str(error) else str(error).rstrip(".")
        raise ReportError(
            f"{stem}.npz and {stem}.json cannot be read together: {why}; restore them, or delete both and run their "
            f"sweep again."
        ) from error
    measured = Measured(values, draws, facts.get("images"), str(facts.get("why_no_draws", "")))
    return Kept(measured, facts)


def _check(values: NDArray[np.float64], draws: NDArray[np.float64] | None, facts: Any) -> None:
    rows, seeds = len(facts["rows"]), len(facts["seeds"])
    if values.shape != (rows, seeds):
        raise ValueError(f"values are {list(values.shape)} for {rows} rows and {seeds} seeds")
    if draws is not None and draws.shape[:2] != values.shape:
        raise ValueError(f"draws are {list(draws.shape)} for {rows} rows and {seeds} seeds")
    if not 2 <= int(facts["min_seeds"]) <= int(facts["max_seeds"]):
        raise ValueError("min_seeds and max_seeds do not fit")
    if rows < 1 or seeds > int(facts["max_seeds"]):
        raise ValueError(f"{seeds} seeds of at most {facts['max_seeds']}")
    images = facts.get("images")
    if images is not None and (not isinstance(images, int) or isinstance(images, bool) or images < 1):
        raise TypeError("images is no number")
    for key in ("answer", "command"):
        if not isinstance(facts[key], str):
            raise TypeError(f"{key} is no text")
    for key in ("rows", "runs"):
        if not isinstance(facts[key], list) or not all(isinstance(entry, dict) for entry in facts[key]):
            raise TypeError(f"{key} is no list of choices or facts")
    choices = [tuple(row.items()) for row in facts["rows"]]
    if len({*choices}) < rows or not all(choices) or not all(isinstance(v, str) for row in choices for _, v in row):
        raise ValueError("rows are not different choices")
    if not all(run.get("row") is None or run["row"] in range(rows) for run in facts["runs"]):
        raise ValueError("a run is of no row")


def used_seeds(measured: Measured) -> int:
    """Number of leading seeds that some row has."""
    return int(np.flatnonzero(np.isfinite(measured.values).any(axis=0)).max(initial=-1)) + 1
