"""Detections of detectors whose quality is known: AP, not a Gaussian, resampled as a report does.

A box is as easy as its image, and found as well as the row, the run and chance have it; its overlap follows. False
detections come with each image. Of equal rows the true difference is 0; of others it is the mean over many sweeps.

R rows, S seeds, B resamples, N detections, T thresholds.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from detlab.report.bootstrap import draw_weights, resampled_ap
from detlab.report.detections import Judged, Truth
from detlab.report.intervals import contrasts
from tests.report.simulating import against_first, table

Array = NDArray[np.float64]
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def split_of(generator: np.random.Generator, images: int) -> tuple[Truth, Array]:
    """A split of one class, one to four boxes an image, and how easy each image is [I]."""
    image = np.repeat(np.arange(images), generator.integers(1, 5, images))
    boxes = np.tile([0.0, 0.0, 40.0, 40.0], (len(image), 1))
    none, area = np.zeros(len(image), bool), np.full(len(image), 1600.0)
    names = [str(i) for i in range(images)]
    truth = Truth(np.arange(images), names, ["thing"], image, np.zeros(len(image), np.int64), boxes, area, none)
    return truth, generator.normal(0, 0.7, images)


def run_of(generator: np.random.Generator, truth: Truth, quality: Array) -> Judged:
    """What a detector of this quality by image [I] finds, judged."""
    count, false = len(truth.image), generator.poisson(1.0, len(quality)).sum()
    skill = quality[truth.image] + generator.normal(0, 0.8, count)
    overlap = 1 / (1 + np.exp(-skill - 0.8))
    image = np.concatenate([truth.image, generator.integers(len(quality), size=false)])
    score = np.concatenate([skill + generator.normal(0, 0.7, count), generator.normal(-1, 1, false)])
    hit = np.concatenate([overlap[:, None] >= THRESHOLDS, np.zeros((false, 10), bool)])
    order = np.argsort(-score, kind="stable")
    zero = np.zeros(len(order), np.int64)
    matched = np.where(hit, np.arange(len(order))[:, None], -1)
    wanted = np.ones(count, bool)
    return Judged(1, image[order], zero, score[order], hit[order], np.zeros_like(hit), matched[order], wanted)


def sweep(
    generator: np.random.Generator, quality: Array, seeds: int, run: float, images: int, resamples: int
) -> tuple[Array, Array]:
    """values [R, S] and draws [R, S, B]: rows of `quality` [R], whose runs differ by `run`, on one split."""
    truth, easy = split_of(generator, images)
    weights = draw_weights(images, resamples, int(generator.integers(2**31)))
    ap = np.empty((len(quality), seeds, resamples + 1))
    for r, mean in enumerate(quality):
        liking = generator.normal(0, 0.4, images)  # a row's own way with images
        for s in range(seeds):
            judged = run_of(generator, truth, easy + liking + mean + generator.normal(0, run))
            ap[r, s] = resampled_ap(judged, truth, weights)[:, 0]
    return ap[..., 0], ap[..., 1:]


def held(quality: Array, seeds: int, run: float, repeats: int, images: int = 120) -> tuple[float, float, float]:
    """Coverage over rows beside the first, share of sweeps with a false verdict, share of true differences found."""
    generator, weights = np.random.default_rng(0), against_first(len(quality))
    swept = [sweep(generator, quality, seeds, run, images, 200) for _ in range(repeats)]
    truth = np.where(quality[1:] == quality[0], 0.0, np.mean([weights @ values.mean(1) for values, _ in swept], axis=0))
    found = [contrasts(values, draws, weights, images=images) for values, draws in swept]
    inside = np.mean([[c.low <= t <= c.high for c, t in zip(cs, truth, strict=True)] for cs in found])
    called = np.array([[{"better": 1, "worse": -1}.get(c.verdict, 0) for c in cs] for cs in found])
    wrong = ((called != 0) & (called != np.sign(truth))).any(1).mean()
    right = (called != 0)[:, truth != 0]
    return float(inside), float(wrong), float(right.mean()) if right.size else float("nan")


def detections_table(repeats: int) -> str:
    """Five rows of which the last is better; `repeats` / 10 sweeps."""
    lines = []
    for seeds in (2, 3, 5):
        for run in (0.0, 0.1, 0.3):
            figures = held(np.array([0.0, 0, 0, 0, 0.4]), seeds, run, repeats // 10)
            lines.append([str(seeds), f"{run}", *[f"{x:.3f}" for x in figures]])
            print(lines[-1], file=sys.stderr)
    return table(["seeds", "deviation of a run's quality", "coverage", "false verdicts", "difference found"], lines)
