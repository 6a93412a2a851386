"""Looks at a growing sweep on drawn runs of known truth: who stops, who goes on, and how often a verdict is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from detlab.report.rounds import looks, noise_of, seeds_wanted, smallest_difference


def drawn(truth: list[float], seeds: int, *, run: float, image: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values [R, S] and draws [R, S, 200]: each row has its own error by images, shared by its seeds."""
    generator = np.random.default_rng(seed)
    rows = len(truth)
    values = np.array(truth)[:, None] + image * generator.standard_normal((rows, 1)) / np.sqrt(2)
    values = values + run * generator.standard_normal((rows, seeds))
    shared = image * generator.standard_normal((rows, 1, 200)) / np.sqrt(2)
    return values, values[..., None] + shared


def test_a_large_difference_is_decided_early_and_its_row_stops_while_the_open_one_goes_on() -> None:
    values, draws = drawn([0.3, 0.5, 0.3], 8, run=0.01, image=0.005, seed=3)
    done = looks(values, draws, 8, images=300)
    decided = next(look for look in done if look.verdicts[0] == "better")
    assert decided.seeds <= 4
    assert decided.open == (1,)
    part = values.copy()
    part[:, decided.seeds :] = np.nan
    wanted = seeds_wanted(part, decided, 8)
    assert wanted == [decided.seeds + 1, decided.seeds, decided.seeds + 1]
    assert all(look.verdicts[0] == "better" for look in done[done.index(decided) :])


def test_looks_follow_from_the_runs_alone() -> None:
    values, draws = drawn([0.3, 0.33, 0.31], 6, run=0.02, image=0.01)
    whole = looks(values, draws, 6, images=300)
    for seeds in range(2, len(whole) + 2):
        assert looks(values[:, :seeds], draws[:, :seeds], 6, images=300) == whole[: seeds - 1]


def test_the_first_round_and_the_last() -> None:
    nothing = np.full((3, 8), np.nan)
    assert looks(nothing, None, 8) == []
    assert seeds_wanted(nothing, None, 8) == [2, 2, 2]
    values, _ = drawn([0.3, 0.3, 0.3], 3, run=0.05, image=0.0)
    last = looks(values, None, 3)[-1]
    assert last.open == (0, 1)
    assert seeds_wanted(values, last, 3) == [3, 3, 3]  # as many as there are: the end


def test_looks_may_begin_later() -> None:
    values, draws = drawn([0.3, 0.5, 0.3], 6, run=0.01, image=0.005, seed=3)
    done = looks(values, draws, 6, images=300, first=4)
    assert [look.seeds for look in done] == [4, 5, 6]
    assert done[0].found[0] is not None
    assert done[0].found[0].seeds == 4
    assert looks(values[:, :3], draws[:, :3], 6, images=300, first=4) == []
    assert seeds_wanted(np.full((3, 6), np.nan), None, 6, first=4) == [4, 4, 4]


def test_rows_that_fail_are_left_and_the_others_go_on() -> None:
    values, _ = drawn([0.3, 0.3, 0.3], 3, run=0.05, image=0.0)
    values[1, 2] = np.nan
    found = looks(values, None, 8)
    assert [look.seeds for look in found] == [2, 3]
    assert found[-1].verdicts[0] == "undecided"
    assert seeds_wanted(values, found[-1], 8, stuck=[1]) == [4, 2, 4]
    assert seeds_wanted(values, found[-1], 8, stuck=[0]) == [3, 2, 3]
    assert looks(values[:1], None, 8) == []


def test_false_verdicts_of_all_looks_together_stay_below_the_level() -> None:
    """Five equal rows, up to 6 seeds, 120 sweeps: without paying for looks about a fifth would have a false verdict."""
    wrong = 0
    for seed in range(120):
        values, draws = drawn([0.3] * 5, 6, run=0.02, image=0.01, seed=seed)
        found = looks(values, draws, 6, images=300)
        wrong += any(verdict != "undecided" for verdict in found[-1].verdicts)
    assert wrong <= 10  # 0.05 x 120 = 6, about two standard errors above


def test_the_smallest_difference_is_found_four_times_of_five() -> None:
    size = smallest_difference(0.02, 0.0, rows=2, seeds=5)
    assert size is not None
    found = 0
    for seed in range(300):
        values, _ = drawn([0.3, 0.3 + size], 5, run=0.02, image=0.0, seed=seed)
        difference = values[1] - values[0]
        error = np.sqrt(values.var(1, ddof=1).sum() / 5)
        found += difference.mean() / error > 2.306  # t at 8 degrees of freedom
    assert 0.74 <= found / 300 <= 0.86
    assert smallest_difference(0.02, 0.0, rows=2, seeds=1) is None
    wider = smallest_difference(0.02, 0.02, rows=6, seeds=5)
    assert wider is not None
    assert wider > size


def test_noise_is_read_from_runs() -> None:
    values, draws = drawn([0.3] * 30, 4, run=0.02, image=0.01)
    run, image = noise_of(values, draws) or (0.0, 0.0)
    assert run == pytest.approx(0.02, rel=0.15)
    assert image == pytest.approx(0.01, rel=0.15)
    assert noise_of(values[:, :1], draws[:, :1]) is None
    assert noise_of(values, None) == (run, 0.0)


def test_what_would_decide_is_asked_at_the_level_of_the_look_to_come() -> None:
    """The first of many looks is strict: what it leaves open because of the images, a later one decides."""
    values, draws = drawn([0.3, 0.35], 6, run=0.0005, image=0.0, seed=1)
    draws = draws + 0.022 * np.random.default_rng(2).standard_normal((2, 1, 200)) / np.sqrt(2)
    done = looks(values, draws, 6, images=100_000)
    assert done[0].verdicts == ("undecided",)
    assert done[-1].verdicts == ("better",)
    for look in done[:-1]:
        assert look.found[0] is not None
        assert look.found[0].deciding == f"{done[-1].seeds} seeds"
