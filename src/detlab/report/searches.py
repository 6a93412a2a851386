"""Trials and Pareto front of a search with several objectives, from the search.json in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from detlab.config.overrides import short_names
from detlab.report.escapes import for_html
from detlab.report.scatter import Point, panel
from detlab.report.tables import DASH, Cell, Table
from detlab.system.foreign import ForeignFileError, read_json_bounded

FILE = "search.json"
LOWEST = "minimize"


@dataclass(frozen=True)
class Trial:
    """A trial with one value per objective."""

    folder: str
    choices: Mapping[str, str]
    values: Sequence[float]
    front: bool

    @property
    def label(self) -> str:
        """Its choices as one line of text."""
        names = short_names(list(self.choices))
        return " ".join(f"{names[key]}={value}" for key, value in self.choices.items())


@dataclass(frozen=True)
class Search:
    """A search: {objective: maximize | minimize} and the trials that ended with all values."""

    objectives: Mapping[str, str]
    trials: Sequence[Trial]


def read_searches(folders: Sequence[Path]) -> list[Search]:
    """The searches of the folders that hold one; a damaged search.json is as good as none."""
    found = []
    for folder in folders:
        try:
            search = _search(read_json_bounded(folder / FILE)) if (folder / FILE).is_file() else None
        except (ForeignFileError, AttributeError, KeyError, TypeError, ValueError):
            search = None
        if search is not None and search.trials:
            found.append(search)
    return found


def _search(content: Any) -> Search:
    objectives = {str(key): str(direction) for key, direction in content["objectives"].items()}
    trials = []
    for trial in content["trials"]:
        values = [float(trial["values"][key]) for key in objectives]
        if all(map(isfinite, values)):
            choices = {str(key): str(value) for key, value in trial["choices"].items()}
            trials.append(Trial(Path(str(trial["folder"] or "")).name, choices, values, trial["front"] is True))
    return Search(objectives, trials)


def search_tables(searches: Sequence[Search]) -> list[Table]:
    """A table per search: its trials, the Pareto front first, by the first objective."""
    return [_table(search, f"search{n}" if n else "search") for n, search in enumerate(searches)]


def _table(search: Search, name: str) -> Table:
    keys = list(dict.fromkeys(key for trial in search.trials for key in trial.choices))
    names = short_names(keys)
    heads = [*(f"{key} ({direction})" for key, direction in search.objectives.items()), *(names[k] for k in keys)]
    first = len(search.objectives)
    count = sum(trial.front for trial in search.trials)
    title = f"Search: Pareto front, {count} of {len(search.trials)} trials"
    table = Table(name, title, [*heads, "Pareto front", "folder"], words=set(range(first, len(heads) + 2)))
    sign = 1 if next(iter(search.objectives.values())) == LOWEST else -1
    for trial in sorted(search.trials, key=lambda t: (not t.front, sign * t.values[0])):
        if trial.front:
            table.marks[len(table.rows)] = "best"
        cells = [Cell(f"{value:.4g}", value) for value in trial.values]
        cells += [Cell(trial.choices.get(key, DASH)) for key in keys]
        table.rows.append([*cells, Cell("yes" if trial.front else ""), Cell(trial.folder)])
    return table


def search_charts(searches: Sequence[Search]) -> str:
    """A chart for each search of one objective that rises and one that falls, such as val/map and latency_ms."""
    panels = [f"<figure>{chart}</figure>" for search in searches if (chart := _chart(search))]
    text = (
        '<p class="soft">Each trial of the search by its values on the validation split. The line joins the Pareto '
        "front: trials that no other trial beats in one objective without being worse in another.</p>"
    )
    return f'{text}<div class="pair">{"".join(panels)}</div>' if panels else ""


def _chart(search: Search) -> str:
    if sorted(search.objectives.values()) != ["maximize", LOWEST] or len(search.trials) < 2:
        return ""
    (gain, cost), names = sorted(range(2), key=lambda i: list(search.objectives.values())[i]), list(search.objectives)
    points = [
        Point(trial.label or trial.folder, trial.values[cost], *(trial.values[gain],) * 3) for trial in search.trials
    ]
    if min(p.cost for p in points) < 0:
        return ""
    best = sorted(p for p, trial in zip(points, search.trials, strict=True) if trial.front)
    told = {p: f"{p.name}: {names[gain]} {p.value:.4g}, {names[cost]} {p.cost:.4g}" for p in points}
    return panel(points, sorted(best, key=lambda p: p.cost), f"{names[gain]} against {names[cost]}", told)


def search_html(tables: Sequence[str], searches: Sequence[Search]) -> str:
    """The section of the page: charts, then the tables; "" without a search."""
    shown = [f"<h3>{for_html(f'Search {n + 1}')}</h3>{table}" if len(tables) > 1 else table
             for n, table in enumerate(tables)]  # fmt: skip
    return search_charts(searches) + "".join(shown)
