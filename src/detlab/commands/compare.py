"""detlab compare: two runs side by side: config, metrics, and images where only one of them makes errors."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from detlab.commands.report import split_arguments
from detlab.commands.words import answer_words
from detlab.config.contracts import describe, fits
from detlab.ranges import Fraction, Natural
from detlab.report.bootstrap import draw_weights, mean_known, resampled_ap
from detlab.report.detections import Judged, Truth, read_judged
from detlab.report.intervals import contrasts
from detlab.report.runs import ReportError, Run, read_run
from detlab.report.tables import DASH
from detlab.system.printing import say, show

USAGE = "detlab compare RUN_A RUN_B"

OPTIONS = {
    "resamples": "bootstrap samples of the interval; 0 for no interval; 1000",
    "score_threshold": "lowest score of detections that count in images; each run's own with the best F1 at IoU 0.5",
    "images": "largest number of images listed for each run; 10",
}
RANGES = {"resamples": Natural, "score_threshold": Fraction, "images": Natural}
HELP = "usage: detlab compare RUN_A RUN_B [KEY=VALUE ...]\n\n" + "\n".join(f"  {k:16} {v}" for k, v in OPTIONS.items())
NOT_COMPARED = ("paths.", "name", "hydra.")


class ImageErrors(NamedTuple):
    """Errors per image at IoU 0.5, for I images: missed boxes and false detections."""

    missed: np.ndarray  # [I]
    false: np.ndarray  # [I]

    @property
    def total(self) -> np.ndarray:
        """Sum of missed boxes and false detections, [I]."""
        return self.missed + self.false


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two runs; returns the exit status."""

    def act(words: list[str]) -> int:
        folders, options = split_arguments(words, OPTIONS)
        if len(folders) != 2:
            raise ReportError(f"detlab compare takes two run folders, not {len(folders)}.")
        numbers: dict[str, Any] = {k: _number(k, v) for k, v in options.items()}
        print_comparison(folders[0], folders[1], **numbers)
        return 0

    return answer_words(arguments, HELP, act)


def _number(key: str, text: str) -> float:
    """Parse a numeric option.

    Raises:
        ReportError: the text is no number, or outside the option's range.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(int(value) if value.is_integer() else value, RANGES[key]):
        raise ReportError(f"{key}={text} must be {describe(RANGES[key])}.")
    return value


def print_comparison(
    a: Path, b: Path, *, resamples: float = 1000, score_threshold: float | None = None, images: float = 10
) -> None:
    """Print all three parts.

    Args:
        a, b: run folders.
        resamples: bootstrap samples of the interval.
        score_threshold: lowest score of detections that count in the images; None for each run's own with the best F1.
        images: largest number of images listed for each run.

    Raises:
        ReportError: a folder is no run.
    """
    runs = [_run(folder) for folder in (a, b)]
    config = Table("key", "A", "B", title="config")
    for key, left, right in config_difference(runs[0].config, runs[1].config):
        config.add_row(key, left, right)
    show(config) if config.row_count else say("The configs are the same.")
    metrics = Table("metric", "A", "B", "B - A", title="metrics")
    for key in [k for k in runs[0].metrics if k in runs[1].metrics]:
        before, after = (run.metrics[key] for run in runs)
        metrics.add_row(key, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    show(metrics)
    for note in notes(*runs):
        say(note)
    try:
        stored_a, stored_b = read_judged(a), read_judged(b)
    except ReportError as error:
        say(f"No interval and no images: {error}")
        return
    if stored_a is None or stored_b is None:
        say("No interval and no images: a run stored no detections.json with ground_truth.json.")
        return
    (truth, by_metric_a), (other, by_metric_b) = stored_a, stored_b
    judged_a, judged_b = by_metric_a["map"], by_metric_b["map"]
    if not np.array_equal(truth.image_ids, other.image_ids) or truth.classes != other.classes:
        say("No interval and no images: the runs were tested on different images or classes.")
        return
    say(interval_text(truth, judged_a, judged_b, int(resamples)))
    both = (judged_a, judged_b)
    scores = [best_score(truth, judged) if score_threshold is None else score_threshold for judged in both]
    errors = [image_errors(truth, judged, score) for judged, score in zip(both, scores, strict=True)]
    say(f"Images: detections count from a score of {scores[0]:.2f} in A and {scores[1]:.2f} in B.")
    for name, other_name, own in (("A", "B", 0), ("B", "A", 1)):
        show(_image_table(truth, errors[own], errors[1 - own], name, other_name, int(images)))


def notes(a: Run, b: Run) -> list[str]:
    """Sentences about metrics that the table lacks, and runs that were judged on different splits."""
    said = []
    if a.split != b.split:
        said.append(f"A was judged on {a.split} and B on {b.split}: their metrics cannot be compared.")
    for name, run, other in (("A", a, b), ("B", b, a)):
        alone = [key for key in run.metrics if key not in other.metrics]
        if alone:
            said.append(f"Only {name} has {', '.join(alone)}.")
        if run.odd:
            said.append(f"In {name}, {', '.join(run.odd)} of result.json is no finite number and is left out.")
    return said


def config_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, value in a, value in b) of all keys whose values differ; a dash for a missing key."""
    left, right = flat(a), flat(b)
    keys = [k for k in dict.fromkeys([*left, *right]) if not k.startswith(NOT_COMPARED)]
    return [(k, left.get(k, DASH), right.get(k, DASH)) for k in keys if left.get(k) != right.get(k)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def interval_text(truth: Truth, a: Judged, b: Judged, resamples: int) -> str:
    """The difference in mAP, B - A, with its bootstrap interval over images, as a sentence."""
    if not resamples:
        return "No interval was asked for."
    weights = draw_weights(len(truth.image_ids), resamples)
    tables = np.array([[mean_known(resampled_ap(judged, truth, weights), 1)] for judged in (a, b)])  # [2, 1, B + 1]
    (found,) = contrasts(tables[..., 0], tables[..., 1:], [[-1, 1]], images=len(truth.image_ids))
    if found.low is None or found.high is None or found.value is None:
        return "No interval: the test split is empty."
    words = "A and B are not distinguishable on images like these"
    if found.differ_here:
        words = f"B is {'better' if found.value > 0 else 'worse'} than A on images like these"
    return (
        f"mAP of B - A: {found.value:+.3f}, 95 % interval [{found.low:+.3f}, {found.high:+.3f}] over "
        f"{len(truth.image_ids)} images: {words}. One run each: another seed may say otherwise."
    )


def best_score(truth: Truth, judged: Judged) -> float:
    """The score threshold with the best F1 at IoU 0.5 over all classes; 0.5 if no detection is correct."""
    counted = ~judged.dropped[:, 0]
    score, hit = judged.score[counted], judged.hit[counted, 0]
    if not hit.any():
        return 0.5
    order = np.argsort(-score, kind="stable")
    score, true = score[order], hit[order].cumsum()
    last = np.append(score[1:] != score[:-1], True)  # a threshold keeps all detections of equal score or none
    f1 = 2 * true / (np.arange(1, len(true) + 1) + int((~truth.crowd).sum()))
    return float(score[np.where(last, f1, -1.0).argmax()])


def image_errors(truth: Truth, judged: Judged, score_threshold: float) -> ImageErrors:
    """Errors of each image at IoU 0.5, counting detections with at least this score."""
    count = len(truth.image_ids)
    kept = judged.score >= score_threshold
    hit, dropped = judged.hit[kept, 0], judged.dropped[kept, 0]
    false = np.bincount(judged.image[kept][~hit & ~dropped], minlength=count)
    found = np.zeros(len(truth.image), bool)
    found[judged.truth[kept, 0][hit]] = True
    missed = np.bincount(truth.image[~found & ~truth.crowd], minlength=count)
    return ImageErrors(missed, false)


def one_right(truth: Truth, right: ImageErrors, wrong: ImageErrors) -> list[int]:
    """Indices of images without errors in `right` and with errors in `wrong`, most errors first."""
    found = np.flatnonzero((right.total == 0) & (wrong.total > 0))
    return found[np.argsort(-wrong.total[found], kind="stable")].tolist()


def fewer_errors(right: ImageErrors, wrong: ImageErrors) -> list[int]:
    """Indices of images with fewer errors in `right` than in `wrong`, the largest difference first."""
    ahead = wrong.total - right.total
    found = np.flatnonzero(ahead > 0)
    return found[np.argsort(-ahead[found], kind="stable")].tolist()


def _image_table(truth: Truth, right: ImageErrors, wrong: ImageErrors, name: str, other: str, most: int) -> Table:
    rows = one_right(truth, right, wrong)
    title = f"{len(rows)} images right in {name}, wrong in {other}"
    if not rows:
        rows = fewer_errors(right, wrong)
        title = f"No image is right in {name} alone; {len(rows)} have fewer errors in {name} than in {other}"
    table = Table(
        "id", "file", *(f"{kind} of {run}" for run in (name, other) for kind in ("missed", "false")), title=title
    )
    for i in rows[:most]:
        counts = [right.missed[i], right.false[i], wrong.missed[i], wrong.false[i]]
        table.add_row(str(truth.image_ids[i]), truth.file_names[i], *map(str, counts))
    return table


def _run(folder: Path) -> Run:
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise ReportError(f"{folder} is not a run folder: there is no .hydra/config.yaml in it.")
    return read_run(folder)


if __name__ == "__main__":
    sys.exit(main())
