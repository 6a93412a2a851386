"""detlab report: which differences between runs are real: an HTML page, with Markdown, CSV and LaTeX tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from detlab.commands.words import answer_words
from detlab.report.analysis import analyse
from detlab.report.answers import answer
from detlab.report.contents import all_tables
from detlab.report.page import html_page, markdown_report
from detlab.report.planned import read_plan
from detlab.report.rows import make_sweep
from detlab.report.runs import NoRunsError, ReportError, find_runs
from detlab.report.searches import read_searches
from detlab.report.tables import as_csv, as_latex
from detlab.runs.folder import claim, give_back, in_use
from detlab.system.files import write_whole
from detlab.system.printing import PlainConsole, say
from detlab.system.text import complain

USAGE = "detlab report outputs/sweeps/NAME"
EVERY_S = 30  # interval between updates of the page while a sweep runs
QUIET_S = 10.0  # interval between lines of progress without a terminal

OPTIONS = {
    "baseline": "choices of the row that the others are compared with, such as baseline=neck=none; the first row",
    "metric": "key of result.json by which rows are ranked and compared, such as map_small, ap/person or map_voc07; "
    "the runs' answer=, else map, or ar_300 for proposals",
    "resamples": "bootstrap samples for the intervals; 0 for none; 1000",
    "out": "folder of the report; FOLDER/report of the first folder",
    "title": "title of the page",
    "follow": "true: update the page while the sweep runs, and let the browser reload it; false",
    "reload": "seconds after which the browser reloads the page; null",
}
HELP = "usage: detlab report FOLDER ... [KEY=VALUE ...]\n\n" + "\n".join(f"  {k:10} {v}" for k, v in OPTIONS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the runs, analyse them, write the report; returns the exit status."""

    def act(words: list[str]) -> int:
        folders, options = split_arguments(words, OPTIONS)
        if flag("follow", options.pop("follow", "false")):
            follow(folders, options)
        else:
            for line in write_report(folders, **options):
                say(line)
        return 0

    return answer_words(arguments, HELP, act)


def split_arguments(words: Sequence[str], known: Mapping[str, str]) -> tuple[list[Path], dict[str, str]]:
    """(folders, options) of a command line.

    Raises:
        ReportError: an option does not exist, or is given twice.
    """
    folders: list[Path] = []
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not word:
            raise ReportError("An argument is empty, as of a shell variable that is not set; give a folder.")
        if not equals or Path(word).exists():
            folders.append(Path(word))
        elif key in options:
            raise ReportError(f"{key} is given twice: {key}={options[key]} and {word}; give one.")
        elif key in known:
            options[key] = value
        else:
            raise ReportError(f"There is no option {key}; there are {', '.join(known)}.")
    return folders, options


def flag(name: str, text: str) -> bool:
    """Parse true or false.

    Raises:
        ReportError: the text is neither.
    """
    if text.lower() not in ("true", "false"):
        raise ReportError(f"{name}={text} must be true or false.")
    return text.lower() == "true"


def follow(folders: Sequence[Path], options: Mapping[str, str]) -> None:
    """Update the page while a job in the folders runs, and once more afterwards or at Ctrl-C."""
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"{folder} is not a folder; give run folders, or folders that hold some.")
    try:
        while is_running(folders):
            try:
                said = write_report(folders, **{**options, "reload": str(EVERY_S)})
                say(f"{datetime.now().astimezone():%H:%M:%S}  {said[0]}  {said[-1]}")
            except NoRunsError:
                say(f"{datetime.now().astimezone():%H:%M:%S}  no run yet")
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        with suppress(NoRunsError):
            write_report(folders, **options)  # a page that nobody updates must not reload itself
        raise
    for line in write_report(folders, **options):
        say(line)


def is_running(folders: Sequence[Path]) -> bool:
    """Whether a process holds one of the folders or a run inside it."""
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
    """Write the report of the runs in some folders; returns the lines to print."""
    if not resamples.isdecimal():
        raise ReportError(f"resamples={resamples} must be a whole number from 0 on.")
    runs = find_runs(folders)
    sweep = make_sweep(runs, baseline, metric)
    if reload != "null" and not (reload.isdecimal() and int(reload)):
        raise ReportError(f"reload={reload} must be a whole number of seconds, or null.")
    with Progress() as progress:
        analysis = analyse(sweep, int(resamples), say=progress.say)
    analysis.plan = read_plan(runs)
    analysis.searches = read_searches(folders)
    place = Path(out) if out else folders[0] / "report"
    if not out and place.is_symlink():  # in a folder from someone else, it could lead to any of one's own
        raise ReportError(f"{place} is a link; give the folder of the report, out=FOLDER.")
    name = title or folders[0].resolve().name
    made = all_tables(analysis)
    when = datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
    files = {
        "index.html": html_page(analysis, name, when, 0 if reload == "null" else int(reload)),
        "report.md": markdown_report(analysis, name, made),
        **{f"{table.name}.csv": as_csv(table) for table in made},
        **{f"{table.name}.tex": as_latex(table) for table in made},
    }
    claim(place, holds=(), option="out")
    try:
        for file, content in files.items():
            write_whole(place / file, content.encode())
    finally:
        give_back(place)  # another command, such as the sweep's own, may write the page of the next jobs
    page = place / "index.html"
    return [*answer(analysis), f"report  {page.absolute()}"]


class Progress:
    """Progress as one line that is updated on a terminal; elsewhere a new line every QUIET_S seconds."""

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
        """Show the current step."""
        if self.status is not None:
            self.status.update(f"resampling {text}")
        elif time.monotonic() - self.told > QUIET_S:
            self.told = time.monotonic()
            complain(f"resampling {text}")


if __name__ == "__main__":
    sys.exit(main())
