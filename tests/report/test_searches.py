"""The Pareto front of a search in its report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from detlab.commands.report import write_report
from detlab.report.analysis import analyse
from detlab.report.answers import answer, command
from detlab.report.effects import interactions, main_effects
from detlab.report.rows import STUDY, make_sweep
from detlab.report.runs import find_runs
from detlab.report.searches import read_searches, search_charts, search_tables
from tests.report.folders import write_run, write_sweep


def trial(number: int, neck: str, ap: float, ms: float, front: bool) -> dict[str, Any]:
    values = {"val/map": ap, "latency_ms": ms}
    return {"folder": f"/x/{number}", "choices": {"model/neck": neck}, "values": values, "front": front}


SEARCH = {
    "objectives": {"val/map": "maximize", "latency_ms": "minimize"},
    "trials": [trial(0, "none", 0.3, 10.0, True), trial(1, "fpn", 0.5, 20.0, True), trial(2, "spp", 0.4, 30.0, False)],
}


def written(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "search.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_front_comes_first_by_the_first_objective(tmp_path: Path) -> None:
    (table,) = search_tables(read_searches([written(tmp_path, SEARCH), tmp_path / "without"]))
    assert table.heads == ["val/map (maximize)", "latency_ms (minimize)", "neck", "Pareto front", "folder"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["0.5", "20", "fpn", "yes", "1"],
        ["0.3", "10", "none", "yes", "0"],
        ["0.4", "30", "spp", "", "2"],
    ]
    assert table.marks == {0: "best", 1: "best"}
    assert table.title.endswith("2 of 3 trials")


def test_the_chart_joins_the_front_by_rising_cost(tmp_path: Path) -> None:
    chart = search_charts(read_searches([written(tmp_path, SEARCH)]))
    assert "val/map against latency_ms" in chart
    line = chart.partition('<polyline points="')[2].partition('"')[0]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.split())
    assert x0 < x1
    assert y0 > y1  # the more accurate trial is higher up
    assert "neck=spp: val/map 0.4, latency_ms 30" in chart


def test_the_label_of_the_highest_point_lies_inside_the_chart(tmp_path: Path) -> None:
    chart = search_charts(read_searches([written(tmp_path, SEARCH)]))
    baselines = {name: float(y) for y, name in re.findall(r'y="([\d.]+)" text-anchor="\w+">(neck=\w+)<', chart)}
    assert {"neck=fpn", "neck=none"} <= {*baselines}
    assert min(baselines.values()) > 16  # letters are about 13 high


@pytest.mark.parametrize(
    "directions",
    [{"val/map": "maximize", "val/map_small": "maximize"}, {"a": "maximize", "b": "minimize", "c": "minimize"}],
)
def test_objectives_that_are_no_gain_over_a_cost_have_a_table_alone(directions: dict[str, str], tmp_path: Path) -> None:
    trials = [{"folder": None, "choices": {}, "values": dict.fromkeys(directions, v), "front": True} for v in (1, 2)]
    searches = read_searches([written(tmp_path, {"objectives": directions, "trials": trials})])
    assert search_charts(searches) == ""
    assert len(search_tables(searches)[0].rows) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "[" * 9999,
        '{"objectives": [], "trials": []}',
        '{"objectives": {"a": "maximize"}, "trials": [[1]]}',
        '{"objectives": {"a": "maximize"}, "trials": [{"folder": "", "choices": {}, "values": {"a": "much"}}]}',
        '{"objectives": {"a": "maximize"}, "trials": [{"folder": "", "choices": 3, "values": {"a": 1}}]}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(content: str, tmp_path: Path) -> None:
    assert read_searches([written(tmp_path, content)]) == []


def test_the_page_shows_it_and_names_stay_text(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", seeds=2)
    evil = json.loads(json.dumps(SEARCH).replace("spp", "<script>=1+1"))
    written(folder, evil)
    write_report([folder], resamples="0")
    page = (folder / "report" / "index.html").read_text()
    assert '<section id="search">' in page
    assert "<script>=1+1" not in page
    rows = list(csv.reader((folder / "report" / "search.csv").read_text().splitlines()))
    assert [row[2] for row in rows] == ["neck", "fpn", "none", "<script>=1+1"]
    assert "## Search: Pareto front, 2 of 3 trials" in (folder / "report" / "report.md").read_text()


def test_a_search_is_no_grid(tmp_path: Path) -> None:
    for number, (neck, rate) in enumerate((("none", 0.1), ("fpn", 0.2), ("fpn", 0.3))):
        write_run(tmp_path / str(number), [f"model/neck={neck}", f"optim.lr={rate}", "seed=0"])
    grid = make_sweep(find_runs([tmp_path]))
    assert len(grid.rows) == 6
    assert "optim.lr=0.1,0.2,0.3" in command(analyse(grid, resamples=0))
    (tmp_path / STUDY).touch()
    searched = make_sweep(find_runs([tmp_path]))
    assert len(searched.rows) == 3  # no cell is missing
    assert command(analyse(searched, resamples=0)) == ""


def test_levels_of_a_search_without_rows_to_compare_are_no_lines(tmp_path: Path) -> None:
    """60 trials of two drawn numbers and a neck made 3,599 interactions of dashes, and one line each in the summary."""
    drawn = [(0.1 + n, 0.2 + n, neck) for n, neck in enumerate(("none", "fpn", "spp"))] + [(0.1, 0.2, "fpn")]
    for number, (rate, decay, neck) in enumerate(drawn):
        chosen = [f"optim.lr={rate}", f"optim.weight_decay={decay}", f"model/neck={neck}", "seed=0"]
        write_run(tmp_path / str(number), chosen, value=0.3 + number / 10)
    grid = analyse(make_sweep(find_runs([tmp_path])), resamples=0)
    assert (len(main_effects(grid)), len(interactions(grid))) == (6, 12)
    (tmp_path / STUDY).touch()
    searched = analyse(make_sweep(find_runs([tmp_path])), resamples=0)
    assert [(e.factor, e.level, e.pairs) for e in main_effects(searched)] == [("model/neck", "fpn", 1)]
    assert interactions(searched) == []
    assert not any("no pair of rows" in sentence for sentence in answer(searched))
