"""Summary of a report: effect of each factor, best row, and decided rows, as sentences and as HTML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from detlab.report.analysis import Analysis
from detlab.report.contents import metric_title, short_words
from detlab.report.effects import Effect, main_effects
from detlab.report.escapes import for_html
from detlab.report.figures import interval_line
from detlab.report.intervals import Contrast
from detlab.report.planned import Plan
from detlab.report.rounds import FIRST
from detlab.report.rows import left_out, of_a_search
from detlab.report.runs import Run

MANY_SEEDS = 20  # seeds per row; larger numbers are not recommended


class Factor(NamedTuple):
    """A factor with the effects of its levels."""

    name: str
    effects: list[Effect]  # each level against the baseline's level, largest effect first


def factors(analysis: Analysis) -> list[Factor]:
    """Factors by the size of their largest effect."""
    found: dict[str, list[Effect]] = {}
    for effect in main_effects(analysis):
        found.setdefault(effect.factor, []).append(effect)
    names = analysis.sweep.names
    made = [Factor(names[key], sorted(effects, key=_size, reverse=True)) for key, effects in found.items()]
    return sorted(made, key=lambda factor: _size(factor.effects[0]), reverse=True)


def _size(effect: Effect) -> float:
    return -1.0 if effect.contrast is None or effect.contrast.value is None else abs(effect.contrast.value)


def change(name: str, effect: Effect) -> str:
    """The change whose effect is shown, in words."""
    return f"{name}: {effect.level} instead of {effect.against}"


def across(analysis: Analysis, effect: Effect) -> str:
    """The levels of other factors over which an effect is averaged, in words."""
    if len(analysis.sweep.factors) < 2:
        return ""
    others = " and ".join(name for key, name in analysis.sweep.names.items() if key != effect.factor)
    return f"over {effect.pairs} pair{'s' if effect.pairs != 1 else ''} of rows, across {others}"


def effect_text(contrast: Contrast | None) -> str:
    """An effect with its interval, as text."""
    if contrast is None or contrast.value is None:
        return "no pair of rows to compare"
    span = "" if contrast.low is None else f" [{contrast.low:+.3f}, {contrast.high:+.3f}]"
    return f"{contrast.value:+.3f}{span}"


def answer(analysis: Analysis, made: Sequence[Factor] | None = None) -> list[str]:
    """The summary in sentences: factors, the best row, what is decided and what would decide the rest."""
    sweep, best = analysis.sweep, analysis.best()
    sentences = left_out(sweep)
    if best is None:
        return [*sentences, "No run has a result yet."]
    title = metric_title(sweep.metric)
    for name, effects in factors(analysis) if made is None else made:
        effect = effects[0]
        known = effect.contrast is not None and effect.contrast.value is not None
        words = f" {title}, {short_words(effect.contrast)}" if known and effect.contrast else ""
        over = across(analysis, effect)
        sentences.append(f"{change(name, effect)}: {effect_text(effect.contrast)}{words}{over and f' ({over})'}.")
    span = row_intervals(analysis)[best]
    spread = "" if span is None or span.low is None else f" [{span.low:.3f}, {span.high:.3f}]"
    sentences.append(f"Highest {title}: {sweep.label(sweep.rows[best])}, {analysis.point(best):.3f}{spread}.")
    return [*sentences, *decided(analysis)]


def row_intervals(analysis: Analysis) -> list[Contrast | None]:
    """[R] mean of each row with its interval; None without runs."""
    known = [i for i in range(len(analysis.sweep.rows)) if analysis.point(i) is not None]
    found = dict(zip(known, analysis.judge([{i: 1.0} for i in known]), strict=True))
    return [found.get(i) for i in range(len(analysis.sweep.rows))]


def decided(analysis: Analysis) -> list[str]:
    """How many rows are better, worse and undecided, and what would decide them."""
    found = [c for c in analysis.differences() if c is not None]
    if not found:
        return []
    count = {
        verdict: sum(c.verdict == verdict for c in found) for verdict in ("better", "worse", "undecided", "one seed")
    }
    told = [f"{count['better']} better", f"{count['worse']} worse", f"{count['undecided']} undecided"]
    if count["one seed"]:
        told.append(f"{count['one seed']} with one seed, which allows no verdict")
    sentences = [f"Beside the baseline, {analysis.sweep.label(analysis.sweep.base)}: {', '.join(told)}."]
    if more := needed(found):
        sentences.append(more)
    sizes = [c.detectable for c in found if c.detectable is not None]
    if count["undecided"] and sizes:
        size, title = float(np.median(sizes)), metric_title(analysis.sweep.metric)
        sentences.append(f"These runs would have found a true difference of {size:.3f} {title} (probability 0.8).")
    return sentences


def needed(found: Sequence[Contrast]) -> str:
    """What would decide the undecided rows, in words; "" if there are none."""
    open_rows = [c for c in found if not c.decided and c.seeds]
    if not open_rows:
        return ""
    seeds = seeds_to_run(found)
    parts = []
    if single := sum(c.seeds < 2 for c in open_rows):
        parts.append(f"{single} need{'s' if single == 1 else ''} a second seed")
    by_seeds = [c.seeds_needed for c in open_rows if c.seeds_needed is not None]
    if by_seeds and seeds is not None:
        within = sum(n <= seeds for n in by_seeds)
        if within:
            parts.append(f"{seeds} seeds a row would decide {within} of the {len(open_rows)}")
        else:
            parts.append(f"the first would need {min(by_seeds):,} seeds")
    elif by_seeds:
        parts.append(f"the first would need {min(by_seeds):,} seeds")
    never = [c.images_needed for c in open_rows if c.seeds >= 2 and c.seeds_needed is None]
    if never:
        images = [n for n in never if n is not None]
        more = f", but {min(images):,} test images would decide the first" if images else ""
        parts.append(f"no number of seeds decides {len(never)}{more}")
    return f"If differences stay as large as they are seen: {'; '.join(parts)}." if parts else ""


def seeds_to_run(found: Sequence[Contrast]) -> int | None:
    """Seeds per row that would decide the open rows for which MANY_SEEDS suffice; None if there are none."""
    open_rows = [c for c in found if not c.decided and c.seeds]
    wanted = [2 if c.seeds < 2 else c.seeds_needed for c in open_rows]
    within = [n for n in wanted if n is not None and n <= MANY_SEEDS]
    return max(within) if within else None


def command(analysis: Analysis) -> str:
    """The command that adds the seeds; "" if more seeds would decide nothing, and for a search, which has no grid."""
    sweep, differences = analysis.sweep, analysis.differences()
    seeds = seeds_to_run([c for c in differences if c is not None])
    runs = [run for row in sweep.rows for run in row.runs.values()]
    if seeds is None or not sweep.factors or not runs or of_a_search(runs):
        return ""
    shared = _shared(runs, {*sweep.factors, "seed", "resume", "trust"})  # nobody is told to trust others' files
    named = [text for text in shared if _key(text) == "ablation"]
    if named:  # all rows, so that verdicts stay corrected for all; decided ones run no more
        words, rows = ["detlab", "ablate", named[0].partition("=")[2]], sweep.rows
        plan = analysis.plan or Plan(tuple(range(seeds)), FIRST)  # an earlier plan has room for the seeds of its own
        least = [f"min_seeds={plan.first}"] if plan.first > FIRST else []
        count = ["until=decided", *least, f"max_seeds={max(seeds, len(plan.seeds))}"]
    else:
        words = ["detlab", "train", "-m"]
        rows = [row for row, c in zip(sweep.rows, differences, strict=True) if c is not None and not c.decided]
        count = [f"seed={','.join(map(str, range(seeds)))}"]
    levels = {key: dict.fromkeys(row.choices[key] for row in [sweep.base, *rows]) for key in sweep.factors}
    added = {_key(text) for run in runs for text in run.given if text.startswith("+")}
    swept = [f"{'+' * (key in added)}{key}={','.join(values)}" for key, values in levels.items()]
    own = [f"--config-dir={runs[0].own}"] if runs[0].own else []
    return shlex.join([*words, *own, *(text for text in shared if text not in named), *swept, *count, *_place(runs)])


def _shared(runs: Sequence[Run], without: Collection[str]) -> list[str]:
    """Overrides as written that all runs were given; loggers too."""
    return [t for t in runs[0].given if _key(t) not in without and all(t in run.given for run in runs)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _place(runs: Sequence[Run]) -> list[str]:
    """The option that names the sweep folder which holds the runs; none if they are no sweep.

    It is named even where the command alone would find it, since only Hydra can tell where that is.
    """
    folders = {run.folder.parent.absolute() for run in runs}  # the page may be read from another folder
    folder = folders.pop()
    if folders or not (folder / "sweep.json").is_file():
        return []
    plain = re.fullmatch(r"[\w./-]+", str(folder))
    return [f"hydra.sweep.dir={folder}" if plain else f"hydra.sweep.dir='{folder}'"]


def answer_html(analysis: Analysis) -> str:
    """The summary as HTML."""
    made = factors(analysis)
    effects = [e.contrast for factor in made for e in factor.effects if e.contrast is not None]
    spans = [x for c in effects if c.low is not None and c.high is not None for x in (c.low, c.high)]
    reach = max((abs(x) for x in spans), default=0.0)
    lines = []
    for name, of_factor in made:
        first, *others = [_line(analysis, change(name, effect), effect, reach) for effect in of_factor]
        lines.append(first)
        if others:
            count = f"{len(others)} other level{'s' if len(others) > 1 else ''} of {for_html(name)}"
            lines.append(f"<details><summary>{count}</summary>{''.join(others)}</details>")
    head = f"<h2>What each choice does to {for_html(metric_title(analysis.sweep.metric))}</h2>" if lines else ""
    told = "".join(f"<p>{for_html(sentence)}</p>" for sentence in answer(analysis, []))
    more = command(analysis)
    shown = f"<p>More seeds: <code>{for_html(more)}</code></p>" if more else ""
    return f'<section class="answer">{head}{"".join(lines)}{told}{shown}</section>'


def _line(analysis: Analysis, name: str, effect: Effect, reach: float) -> str:
    contrast, over = effect.contrast, across(analysis, effect)
    words = "" if contrast is None else short_words(contrast)
    kind = contrast.verdict if contrast is not None and contrast.decided else "same"
    drawn = ""
    if contrast is not None and contrast.value is not None and contrast.low is not None and contrast.high is not None:
        drawn = interval_line(name, contrast.value, contrast.low, contrast.high, reach, clear=contrast.decided)
    if contrast is not None and contrast.deciding and contrast.value is not None:
        words += f"; {contrast.deciding}" + (
            " would decide" if contrast.seeds_needed or contrast.seeds < 2 else " decides"
        )
    small = f'<small class="soft">{for_html(over)}</small>' if over else ""
    return (
        f'<div class="factor"><div><b>{for_html(name)}</b> {small}</div>{drawn or "<div></div>"}'
        f'<div>{for_html(effect_text(contrast))} <span class="{kind}">{for_html(words)}</span></div></div>'
    )
