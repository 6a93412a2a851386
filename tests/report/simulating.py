"""Sweeps with a known truth: how often intervals hold it, and how often a verdict is wrong.

    python -m tests.report.simulating [repeats=600] [table=NAME]

prints the tables of docs/intervals.md: coverage, false_verdicts, methods, looks, detections; all without `table`.

R rows, S seeds, I images, B resamples, C contrasts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detlab.report.intervals import contrasts
from detlab.report.spending import look_level, open_comparisons, settle

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Scores of images x[r, s, i] = mu[r] + image effect[r, i] + run effect[r, s] + residual[r, s, i]; their means.

    Attributes:
        run: [R] variance of a run effect.
        image: variance of a row's mean by image effects.
        own: variance of a run's mean by residuals.
        alike: correlation of the image effects of two rows.
    """

    run: tuple[float, ...]
    seeds: int
    image: float = 1.0
    own: float = 0.3
    alike: float = 0.3
    images: int = 100
    resamples: int = 200
    effects: tuple[float, ...] = ()

    @property
    def rows(self) -> int:
        """R."""
        return len(self.run)

    def truth(self, weights: Array) -> Array:
        """[C] what the contrasts are."""
        return weights @ (np.array(self.effects) if self.effects else np.zeros(self.rows))

    def deviation(self, weights: Array) -> Array:
        """[C] true standard deviation of a contrast's value."""
        by_images = self.image * ((1 - self.alike) * (weights**2).sum(1) + self.alike * weights.sum(1) ** 2)
        return np.asarray(np.sqrt(by_images + weights**2 @ (np.array(self.run) + self.own) / self.seeds))

    def sweeps(self, repeats: int, seed: int = 0) -> Iterator[tuple[Array, Array]]:
        """values [R, S] and draws [R, S, B] of `repeats` sweeps."""
        generator = np.random.default_rng(seed)
        pool = [generator.multinomial(self.images, [1 / self.images] * self.images, self.resamples) for _ in range(8)]
        counts = [drawn.astype(float).T / self.images for drawn in pool]  # [I, B]
        shape, mu = (self.rows, self.seeds, self.images), self.truth(np.eye(self.rows))
        for repeat in range(repeats):
            shared, single = generator.normal(size=(1, self.images)), generator.normal(size=(self.rows, self.images))
            effect = np.sqrt(self.alike) * shared + np.sqrt(1 - self.alike) * single
            x = np.sqrt(self.own * self.images) * generator.normal(size=shape) if self.own else np.zeros(shape)
            x += np.sqrt(self.image * self.images) * effect[:, None]
            x += (mu[:, None] + np.sqrt(self.run)[:, None] * generator.normal(size=shape[:2]))[..., None]
            yield x.mean(-1), x @ counts[repeat % len(counts)]


def against_first(rows: int) -> Array:
    """[R - 1, R] each row beside the first."""
    return np.hstack([-np.ones((rows - 1, 1)), np.eye(rows - 1)])


def pairs(rows: int) -> Array:
    """As `against_first`, and the last row beside the second, which may be the two noisiest."""
    weights = against_first(rows)
    return weights if rows < 4 else np.vstack([weights, weights[-1] - weights[0]])


def variances(pattern: str, rows: int, scale: float) -> tuple[float, ...]:
    """Run variance [R]: all `scale` ("equal"), or some x times others, as in "every other x4"; mean `scale`."""
    found = np.ones(rows)
    name, _, factor = pattern.partition(" x")
    if name == "every other":
        found[1::2] = float(factor)
    elif name == "first":
        found[0] = float(factor)
    return tuple(found * scale / found.mean())


PATTERNS = ("equal", "every other x10", "first x10")
NOISES = {  # run variance, image variance, residual variance
    "images alone": (0.0, 1.0, 0.0),
    "0": (0.0, 1.0, 0.3),
    "1": (0.7, 1.0, 0.3),
    "4": (3.7, 1.0, 0.3),
    "seeds alone": (1.0, 0.0, 0.0),
}


def world(rows: int, seeds: int, noise: str, pattern: str) -> World:
    """A cell of the coverage table."""
    run, image, own = NOISES[noise]
    return World(variances(pattern, rows, run), seeds, image, own)


class Held(NamedTuple):
    """How intervals did, [C]."""

    coverage: Array
    width: Array  # mean, beside that of an interval that knows the variances


def measure(place: World, repeats: int, seed: int = 0) -> Held:
    """Coverage and width of the intervals of `contrasts`."""
    weights = pairs(place.rows)
    truth, best = place.truth(weights), 1.959964 * place.deviation(weights)
    held, half = np.zeros(len(weights)), np.zeros(len(weights))
    for values, draws in place.sweeps(repeats, seed):
        found = contrasts(values, draws, weights, images=place.images)
        held += [c.low <= t <= c.high for c, t in zip(found, truth, strict=True)]
        half += [(c.high - c.low) / 2 for c in found]
    return Held(held / repeats, half / repeats / best)


def false_verdicts(place: World, repeats: int, seed: int = 0) -> float:
    """Share of sweeps of equal rows in which at least one is called better or worse than the first."""
    weights = against_first(place.rows)
    wrong = 0
    for values, draws in place.sweeps(repeats, seed):
        wrong += any(c.decided for c in contrasts(values, draws, weights, images=place.images))
    return wrong / repeats


class Looked(NamedTuple):
    """How `until=decided` ended."""

    verdicts: tuple[str, ...]
    seeds: tuple[int, ...]  # at which each comparison was decided, or the last
    runs: int


def look(values: Array, draws: Array, images: int, max_seeds: int) -> Looked:
    """Add seeds to open comparisons, a round at a time, until all are decided or max_seeds is reached."""
    rows = len(values)
    weights, verdicts = against_first(rows), ("undecided",) * (rows - 1)
    has, spent = np.zeros(values.shape, bool), np.zeros(rows - 1, int)
    for seeds in range(2, max_seeds + 1):
        still = list(open_comparisons(verdicts))
        if not still:
            break
        has[[0, *(c + 1 for c in still)], :seeds] = True
        level = look_level(seeds, max_seeds, comparisons=len(still))
        known = np.where(has, values, np.nan)[:, :seeds]
        found = contrasts(known, draws[:, :seeds], weights[still], images=images, verdict_level=level)
        verdicts = settle(verdicts, [c.verdict for c in found])
        spent[still] = seeds
    return Looked(verdicts, tuple(int(s) for s in spent), int(has.sum()))


def looks(place: World, repeats: int, seed: int = 0) -> tuple[float, Array, float, float]:
    """False verdicts over all looks, share found [R - 1] of differences, mean seeds at the end, mean runs."""
    truth = place.truth(against_first(place.rows))
    wrong, found, seeds, runs = 0, np.zeros(place.rows - 1), 0.0, 0
    for values, draws in place.sweeps(repeats, seed):
        end = look(values, draws, place.images, place.seeds)
        called = np.array([{"better": 1, "worse": -1}.get(v, 0) for v in end.verdicts])
        wrong += bool(((called != 0) & (called != np.sign(truth))).any())
        found += called != 0
        seeds += float(np.mean(end.seeds))
        runs += end.runs
    return wrong / repeats, found / repeats, seeds / repeats, runs / repeats


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def coverage_table(repeats: int) -> str:
    """By rows, seeds, noise and pattern: mean coverage over contrasts, that of the worst, and width."""
    lines = []
    for seeds in (2, 3, 5):
        for rows in (2, 4, 8):
            for noise in NOISES:
                cells = []
                for pattern in PATTERNS if NOISES[noise][0] else PATTERNS[:1]:
                    if rows == 2 and pattern.startswith("first"):
                        cells.append("")
                        continue
                    held = measure(world(rows, seeds, noise, pattern), repeats)
                    cells.append(f"{held.coverage.mean():.3f} ({held.coverage.min():.3f}) {held.width.mean():.2f}")
                lines.append([str(seeds), str(rows), noise, *cells, *[""] * (len(PATTERNS) - len(cells))])
                print(lines[-1], file=sys.stderr)
    return table(["seeds", "rows", "run / image variance", *PATTERNS], lines)


def false_table(repeats: int) -> str:
    """Ten equal rows, nine beside the first."""
    lines = []
    for seeds in (2, 3, 5):
        for noise in ("1", "4", "seeds alone"):
            cells = [f"{false_verdicts(world(10, seeds, noise, p), repeats):.3f}" for p in PATTERNS]
            lines.append([str(seeds), noise, *cells])
            print(lines[-1], file=sys.stderr)
    return table(["seeds", "run / image variance", *PATTERNS], lines)


def looks_table(repeats: int) -> str:
    """Ten rows, 2 to 8 seeds: none differs (half of `repeats`); three do, by 1.5, 3 and 6 deviations of a run."""
    lines = []
    for noise in ("1", "4", "seeds alone"):
        for pattern in ("equal", "every other x10"):
            place = world(10, 8, noise, pattern)
            equal, _, _, runs = looks(place, repeats // 2)
            size = float(np.sqrt(place.run[0] + place.own))
            effects = tuple(size * np.array([0, 1.5, 3, 6, 0, 0, 0, 0, 0, 0]))
            wrong, found, _, used = looks(replace(place, effects=effects), repeats // 4)
            shares = " / ".join(f"{f:.2f}" for f in found[:3])
            lines.append([noise, pattern, f"{equal:.3f}", f"{runs:.0f}", f"{wrong:.3f}", shares, f"{used:.0f}"])
            print(lines[-1], file=sys.stderr)
    head = ["run / image variance", "runs' variance", "false, ten equal rows", "runs", "false, three differ"]
    return table([*head, "found", "runs then"], lines)


def main(arguments: list[str]) -> None:
    """Print the tables asked for."""
    from tests.report.other_methods import methods_table
    from tests.report.simulated_detections import detections_table

    options = dict(a.split("=", 1) for a in arguments)
    repeats = int(options.get("repeats", 600))
    made: dict[str, Callable[[int], str]] = {
        "coverage": coverage_table,
        "false_verdicts": false_table,
        "methods": methods_table,
        "looks": looks_table,
        "detections": detections_table,
    }
    for name in [options["table"]] if "table" in options else made:
        print(f"{name}, repeats={repeats}\n\n{made[name](repeats)}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
