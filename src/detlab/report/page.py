"""The report as one self-contained HTML page: no network, no other files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from detlab.report import figures, tables
from detlab.report.analysis import Analysis
from detlab.report.answers import answer, answer_html
from detlab.report.contents import all_tables, metric_title
from detlab.report.costs import unfair
from detlab.report.escapes import for_html, for_markdown
from detlab.report.searches import search_html
from detlab.report.sheet import picture_of
from detlab.report.tradeoffs import front_words, tradeoffs

METHOD = (
    "Each difference has its own 95 % interval (Student's t). It covers the noise between seeds and the noise of the "
    "{images:,} test images, estimated from {resamples:,} resamples that are the same for all rows. The verdicts of a "
    "table are corrected together (Holm): the probability that any of them is wrong is at most 5 %. An interval may "
    "therefore exclude 0 although its row is undecided. Would decide: number of seeds per row, or of images, at which "
    "a difference as large as the observed one would be decided. Finds from: the smallest true difference that these "
    "runs would have found with probability 0.8."
)
OVER_SEEDS = (
    "Each difference has its own 95 % interval (Student's t), over seeds only and for these test images only: "
    "{why}. The verdicts of a table are corrected together (Holm)."
)
LOOKS = (
    " detlab ablate looks at this sweep after each seed from {first} to {last}: the verdicts are corrected for that, "
    "too, and a row that was decided stays so. An interval is that of a single look."
)
OPEN_ROWS = 12  # longer tables are folded
MOST_LINES = 10  # largest number of rows drawn as curves or pictures
MOST_PICTURES = 1_500_000  # largest size of all pictures together, in characters
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def html_page(analysis: Analysis, title: str, when: str, reload: int = 0) -> str:
    """The whole page; with `reload`, the browser reloads it after that many seconds."""
    parts = [section for section in _sections(analysis) if section[2]]
    links = "".join(f'<a href="#{name}">{for_html(head)}</a>' for name, head, _ in parts)
    body = "".join(f'<section id="{name}"><h2>{for_html(head)}</h2>{inside}</section>' for name, head, inside in parts)
    warned = "".join(f'<p class="warning">{for_html(text)}</p>' for text in warnings_of(analysis))
    source = files("detlab.report")
    style, script = (source.joinpath(f"page.{kind}").read_text() for kind in ("css", "js"))
    sweep = analysis.sweep
    runs = sum(len(row.done) for row in sweep.rows)
    facts = f"{len(sweep.rows)} rows, {runs} runs with a result, seeds {', '.join(map(str, sweep.seeds))}; {when}"
    again = f'<meta http-equiv="refresh" content="{reload}">' if reload else ""
    facts += "; a sweep is running, this page is reloaded" if reload else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'{again}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{for_html(title)}</title><style>{style}</style></head>'
        f'<body><header><h1>{for_html(title)}</h1><div class="soft">{for_html(facts)}</div><nav>{links}</nav></header>'
        f"<main>{answer_html(analysis)}"
        f"{warned}{body}</main><script>{script}</script></body></html>\n"
    )


def method(analysis: Analysis) -> str:
    """How intervals and verdicts are computed, in words; "" if there are none."""
    if not any(analysis.differences()):
        return ""
    looked = ""
    if analysis.plan is not None:
        looked = LOOKS.format(first=analysis.plan.first, last=len(analysis.plan.seeds))
    if analysis.why_no_draws or not analysis.resamples:
        return OVER_SEEDS.format(why=analysis.why_no_draws or "none were resampled") + looked
    return METHOD.format(resamples=analysis.resamples, images=analysis.images) + looked


def warnings_of(analysis: Analysis) -> list[str]:
    """Sentences on what makes the comparison unfair or uncertain."""
    said = unfair(analysis.sweep) + front_words(analysis)
    missing = [seed for row in analysis.sweep.rows for seed in analysis.sweep.seeds if seed not in row.done]
    if missing:
        said.append(f"{len(missing)} of the cells are missing or failed; see Every run.")
    runs = [run for row in analysis.sweep.rows for run in row.done.values()]
    if judged := sum(run.split == "val" for run in runs):
        said.append(
            f"{judged} of {len(runs)} runs are judged on val, which also selected their checkpoints: the data have no "
            "test split, and the values are too high by what that selection gained. Where this report says test "
            "images, those of val are meant. data.test_fraction=0.2 makes a test split."
        )
    if len(analysis.sweep.seeds) == 1 and len(analysis.sweep.rows) > 1:
        said.append(
            "There is one seed, so there is no verdict about the choice: another seed may give another result. The "
            "intervals cover the test images only. Run a second seed."
        )
    return said


def _sections(analysis: Analysis) -> list[tuple[str, str, str]]:
    """(anchor, heading, HTML) of each section; empty ones are dropped."""
    made = {table.name: _folded(table) for table in all_tables(analysis)}
    said = method(analysis)
    text = f'<p class="soft">{for_html(said)}</p>' if said else ""
    effects = made.get("effects", "")
    effects_text = (
        '<p class="soft">Each level against the baseline\'s level, averaged over all pairs of rows that differ in it '
        "alone.</p>"
    )
    return [
        ("table", "Results", text + made.get("results", "") + _intervals(analysis)),
        ("cost", "Cost", _costs(analysis)),
        (
            "search",
            "Search",
            search_html([t for name, t in made.items() if name.startswith("search")], analysis.searches),
        ),
        ("main-effects", "Main effects", effects and effects_text + effects),
        ("pairs", "Interactions of pairs", made.get("interactions", "")),
        ("curves", "Curves", _curves(analysis)),
        ("by-class", "By size and by class", made.get("classes", "")),
        ("errors", "Where AP is lost", _errors(analysis)),
        ("spent", "Budget", made.get("budget", "")),
        ("sheet", "The same images", _sheet(analysis)),
        ("every-run", "Every run", made.get("runs", "")),
        ("repeat", "Commands", made.get("commands", "")),
    ]


def _folded(table: tables.Table) -> str:
    """A table, folded if it has more than OPEN_ROWS rows."""
    shown = tables.as_html(table)
    return shown if len(table.rows) <= OPEN_ROWS else _fold(f"{len(table.rows)} rows", shown)


def _fold(summary: str, inside: str) -> str:
    return f"<details><summary>{for_html(summary)}</summary>{inside}</details>"


def _costs(analysis: Analysis) -> str:
    shown = tradeoffs(analysis)
    text = (
        '<p class="soft">Each row with the interval of its mean. The line joins the Pareto front: rows that no other '
        "row beats at the same or lower cost.</p>"
    )
    return shown and text + shown


def _intervals(analysis: Analysis) -> str:
    sweep = analysis.sweep
    rows = [
        (sweep.label(row), found.value, found.low, found.high, found.decided)
        for row, found in zip(sweep.rows, analysis.differences(), strict=True)
        if found is not None and found.value is not None and found.low is not None and found.high is not None
    ]
    title = f"{metric_title(sweep.metric)} difference to the baseline"
    chart = f"<figure>{figures.interval_chart(rows, title)}</figure>" if rows else ""
    return chart if len(rows) <= OPEN_ROWS else _fold(f"{len(rows)} differences drawn", chart)


def _curves(analysis: Analysis) -> str:
    sweep, lines, shown = analysis.sweep, [], _chosen(analysis, MOST_LINES)
    for row in [sweep.rows[i] for i in shown]:
        curves = [dict(run.curve) for run in row.runs.values() if run.curve]
        epochs = sorted(set.intersection(*map(set, curves))) if curves else []
        if epochs:
            values = np.array([[curve[e] for e in epochs] for curve in curves])
            points = list(zip(epochs, values.mean(0), strict=True))
            band = list(zip(epochs, values.min(0), values.max(0), strict=True)) if len(curves) > 1 else []
            lines.append(figures.Line(sweep.label(row), points, band))
    recalls = np.linspace(0, 1, 101)
    pr = [
        figures.Line(sweep.label(sweep.rows[i]), list(zip(recalls, curve, strict=True)))
        for i, curve in analysis.precision.items()
        if i in shown
    ]
    some = f" ({len(shown)} of {len(sweep.rows)} rows)" if len(shown) < len(sweep.rows) else ""
    monitor = next((run.monitor for row in sweep.rows for run in row.runs.values()), "val/map")
    return _pair(
        (f"Learning: mean over seeds, band from lowest to highest{some}", figures.line_chart(lines, "epoch", monitor)),
        (
            f"Precision over recall at IoU 0.5, mean over classes and seeds{some}",
            figures.line_chart(pr, "recall", "precision"),
        ),
    )


def _chosen(analysis: Analysis, most: int) -> list[int]:
    """Rows to show if there are too many: the baseline and the best by the metric, in the table's order."""
    order = sorted(range(len(analysis.sweep.rows)), key=lambda i: -(analysis.point(i) or 0.0))
    first = [analysis.sweep.baseline, *(i for i in order if i != analysis.sweep.baseline)]
    return sorted(first[:most])


def _pair(*charts: tuple[str, str]) -> str:
    shown = [f"<figure><figcaption>{for_html(text)}</figcaption>{chart}</figure>" for text, chart in charts if chart]
    return f'<div class="pair">{"".join(shown)}</div>' if shown else ""


def _errors(analysis: Analysis) -> str:
    """AP regained by fixing each kind of error, mean over seeds."""
    rows = []
    for row in [analysis.sweep.rows[i] for i in _chosen(analysis, 2 * MOST_LINES)]:
        found = [run.errors["kinds"] for run in row.done.values() if "kinds" in run.errors]
        if found:
            means = [float(np.mean([f.get(kind, {}).get("ap_regained", 0.0) for f in found])) for kind in KINDS]
            rows.append((analysis.sweep.label(row), means))
    if not rows:
        return ""
    text = (
        '<p class="soft">AP at IoU 0.5 regained if only errors of one kind were fixed (TIDE). '
        "The parts do not add up to the lost AP.</p>"
    )
    return text + f"<figure>{figures.share_chart(rows, KINDS, 'AP50 regained')}</figure>"


def _sheet(analysis: Analysis) -> str:
    shown: list[str] = []
    chosen = _chosen(analysis, MOST_LINES)
    for row in [analysis.sweep.rows[i] for i in chosen]:
        picture = picture_of(row)
        if picture is not None and sum(map(len, shown)) + len(picture[0]) < MOST_PICTURES:
            name = for_html(f"{analysis.sweep.label(row)}, seed {picture[1]}")
            image = f'<img loading="lazy" alt="{name}" src="{picture[0]}">'
            shown.append(f"<figure><figcaption>{name}</figcaption>{image}</figure>")
    text = '<p class="soft">The first test images: ground truth on the left of each pair, detections on the right.</p>'
    if len(chosen) < len(analysis.sweep.rows):
        text += f'<p class="soft">{len(shown)} of {len(analysis.sweep.rows)} rows: the baseline and the best.</p>'
    return f'{text}<div class="sheet">{"".join(shown)}</div>' if shown else ""


def markdown_report(analysis: Analysis, title: str, made: Sequence[tables.Table]) -> str:
    """The report's sentences and tables as Markdown."""
    parts = [f"# {for_markdown(title)}", *map(for_markdown, answer(analysis))]
    parts += [f"**Warning.** {for_markdown(text)}" for text in warnings_of(analysis)]
    if said := method(analysis):
        parts.append(said)
    for table in made:
        parts.append(f"## {table.title}\n\n{tables.as_markdown(table).rstrip()}")
    return "\n\n".join(parts) + "\n"
