"""detlab report: which differences are real: one HTML page, with Markdown, CSV and LaTeX tables beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from detlab.errors import ConfigError
from detlab.report.analysis import analyse
from detlab.report.answers import answer
from detlab.report.contents import all_tables
from detlab.report.page import html_page, markdown_report
from detlab.report.rows import make_sweep
from detlab.report.runs import NoRunsError, ReportError, find_runs
from detlab.report.tables import as_csv, as_latex
from detlab.runs.folder import claim, in_use
from detlab.system.files import write_whole
from detlab.system.printing import PlainConsole, complain, say

USAGE = "detlab report outputs/sweeps/NAME"
EVERY_S = 30  # between two pages of a sweep that runs
QUIET_S = 10.0  # between two lines of progress off a terminal

OPTIONS = {
    "baseline": "choices of the row that the others are compared with, such as baseline=neck=none; the first row",
    "metric": "of result.json that rows are ranked and judged by, such as map_small, ap/person or map_voc07; the one "
    "that the runs name in answer=, else map, or ar_300 for proposals",
    "resamples": "of the intervals; 0 for none; 1000",
    "out": "folder of the report; FOLDER/report of the first folder",
    "title": "of the page",
    "follow": "true: write the page anew while the sweep runs, which then loads itself; false",
    "reload": "seconds after which the page loads itself anew; null",
}
HELP = "usage: detlab report FOLDER ... [KEY=VALUE ...]\n\n" + "\n".join(f"  {k:10} {v}" for k, v in OPTIONS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, analyse, write; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    try:
        folders, options = split_arguments(words, OPTIONS)
        if flag("follow", options.pop("follow", "false")):
            follow(folders, options)
        else:
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


def flag(name: str, text: str) -> bool:
    """true or false.

    Raises:
        ReportError: neither.
    """
    if text.lower() not in ("true", "false"):
        raise ReportError(f"{name}={text} must be true or false.")
    return text.lower() == "true"


def follow(folders: Sequence[Path], options: Mapping[str, str]) -> None:
    """Write the page while a job of the folders runs, and once more when none does."""
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"{folder} is not a folder; give run folders, or folders that hold some.")
    while is_running(folders):
        try:
            said = write_report(folders, **{**options, "reload": str(EVERY_S)})
            say(f"{datetime.now().astimezone():%H:%M:%S}  {said[0]}  {said[-1]}")
        except NoRunsError:
            say(f"{datetime.now().astimezone():%H:%M:%S}  no run yet")
        time.sleep(EVERY_S)
    for line in write_report(folders, **options):
        say(line)


def is_running(folders: Sequence[Path]) -> bool:
    """Whether a process works in one of the folders, or in a run below it."""
    places = [place for folder in folders for place in (folder, *folder.glob("*"), *folder.glob("*/*"))]
    return any(in_use(place) for place in places if place.is_dir())


def write_report(
    folders: Sequence[Path],
    *,
    baseline: str = "",
    metric: str = "",
    resamples: str = "1000",
    out: str = "",
    title: str = "",
    reload: str = "null",
) -> list[str]:
    """Write the report of some folders; the lines to print."""
    if not resamples.isdecimal():
        raise ReportError(f"resamples={resamples} must be a whole number from 0 on.")
    sweep = make_sweep(find_runs(folders), baseline, metric)
    if reload != "null" and not (reload.isdecimal() and int(reload)):
        raise ReportError(f"reload={reload} must be a whole number of seconds, or null.")
    with Progress() as progress:
        analysis = analyse(sweep, int(resamples), say=progress.say)
    place = Path(out) if out else folders[0] / "report"
    claim(place, holds=(), option="out")
    name = title or folders[0].resolve().name
    made = all_tables(analysis)
    page = place / "index.html"
    when = datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
    write_whole(page, html_page(analysis, name, when, 0 if reload == "null" else int(reload)).encode())
    write_whole(place / "report.md", markdown_report(analysis, name, made).encode())
    for table in made:
        write_whole(place / f"{table.name}.csv", as_csv(table).encode())
        write_whole(place / f"{table.name}.tex", as_latex(table).encode())
    return [*answer(analysis), f"report  {page.absolute()}"]


class Progress:
    """One line that changes on a terminal; elsewhere a line from time to time."""

    def __init__(self) -> None:
        console = PlainConsole(stderr=True)
        self.status = console.status("reading") if console.is_terminal else None
        self.told = time.monotonic()

    def __enter__(self) -> Progress:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def say(self, text: str) -> None:
        """Tell what is done now."""
        if self.status is not None:
            self.status.update(f"resampling {text}")
        elif time.monotonic() - self.told > QUIET_S:
            self.told = time.monotonic()
            complain(f"resampling {text}")


if __name__ == "__main__":
    sys.exit(main())
