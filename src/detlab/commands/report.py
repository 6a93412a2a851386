"""detlab report: which differences are real: one HTML page, with Markdown, CSV and LaTeX tables beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from detlab.errors import ConfigError
from detlab.printing import PlainConsole, complain, say
from detlab.report.analysis import analyse
from detlab.report.answers import answer
from detlab.report.contents import all_tables
from detlab.report.page import html_page, markdown_report
from detlab.report.rows import make_sweep
from detlab.report.runs import ReportError, find_runs
from detlab.report.tables import as_csv, as_latex
from detlab.runs.folder import claim

USAGE = "detlab report outputs/sweeps/NAME"

OPTIONS = {
    "baseline": "choices of the row that the others are compared with, such as baseline=neck=none; the first row",
    "metric": "of result.json that rows are ranked and judged by, such as map_small, ap/person or map_voc07; the one "
    "that the runs name in answer=, else map, or ar_300 for proposals",
    "resamples": "of the intervals; 0 for none; 1000",
    "out": "folder of the report; FOLDER/report of the first folder",
    "title": "of the page",
}
USAGE = "usage: detlab report FOLDER ... [KEY=VALUE ...]\n\n" + "\n".join(f"  {k:10} {v}" for k, v in OPTIONS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, analyse, write; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        folders, options = split_arguments(words, OPTIONS)
        for line in write_report(folders, **options):
            say(line)
    except (ReportError, ConfigError) as error:
        complain(error)
        return 2
    return 0


def split_arguments(words: Sequence[str], known: Mapping[str, str]) -> tuple[list[Path], dict[str, str]]:
    """(folders, options) of a command line.

    Raises:
        ReportError: an option that does not exist.
    """
    folders, options = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            folders.append(Path(word))
        elif key in known:
            options[key] = value
        else:
            raise ReportError(f"There is no option {key}; there are {', '.join(known)}.")
    return folders, options


def write_report(
    folders: Sequence[Path],
    *,
    baseline: str = "",
    metric: str = "",
    resamples: str = "1000",
    out: str = "",
    title: str = "",
) -> list[str]:
    """Write the report of some folders; the lines to print."""
    if not resamples.isdigit():
        raise ReportError(f"resamples={resamples} must be a whole number from 0 on.")
    sweep = make_sweep(find_runs(folders), baseline, metric)
    console = PlainConsole(stderr=True)
    with console.status("reading") as status:
        analysis = analyse(sweep, int(resamples), say=lambda text: status.update(f"resampling {text}"))
    place = Path(out) if out else folders[0] / "report"
    claim(place, holds=(), option="out")
    name = title or folders[0].resolve().name
    made = all_tables(analysis)
    page = place / "index.html"
    page.write_text(html_page(analysis, name, datetime.now().astimezone().strftime("%d %B %Y, %H:%M")), "utf-8")
    (place / "report.md").write_text(markdown_report(analysis, name, made), "utf-8")
    for table in made:
        (place / f"{table.name}.csv").write_text(as_csv(table), "utf-8")
        (place / f"{table.name}.tex").write_text(as_latex(table), "utf-8")
    return [*answer(analysis), f"report  {page.absolute()}"]


if __name__ == "__main__":
    sys.exit(main())
