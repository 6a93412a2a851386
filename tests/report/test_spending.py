"""How the probability of being wrong is shared by comparisons and looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from detlab.report.spending import holm, look_level, look_levels, open_comparisons, settle
from tests.report.simulating import look, world


def test_holm_by_hand() -> None:
    # Sorted .01 .03 .04 times 3 2 1: .03 .06 .04, never falling: .03 .06 .06
    adjusted, threshold = holm([0.01, 0.04, np.nan, 0.03], 0.05)
    assert adjusted == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert threshold == pytest.approx([0.05 / 3, 0.025, 0.05, 0.025])  # the two that stay share .05


def test_levels_are_those_of_lan_and_demets() -> None:
    # Five equal looks, .05 on two sides, O'Brien and Fleming's spending
    assert -special.ndtri(np.array(look_levels(0.05, 1, 5)) / 2) == pytest.approx(
        [4.877, 3.357, 2.680, 2.290, 2.031], abs=0.003
    )


def test_random_walks_cross_as_often_as_allowed() -> None:
    walks = np.random.default_rng(0).normal(size=(200_000, 8)).cumsum(1)[:, 1:] / np.sqrt(np.arange(2, 9))
    bounds = -special.ndtri(np.array(look_levels(0.05, 2, 8)) / 2)
    assert (np.abs(walks) > bounds).any(1).mean() == pytest.approx(0.05, abs=0.002)


def test_levels_of_looks() -> None:
    levels = [look_level(s, 8) for s in range(2, 9)]
    assert levels == sorted(levels, reverse=True)
    assert 0.95 < levels[-1] < 0.97
    assert look_level(3, 3, first=3) == pytest.approx(0.95, abs=1e-4)  # one look is no repeated look
    assert look_level(2, 20, comparisons=50) < 1
    one, nine = 1 - look_level(8, 8), 1 - look_level(8, 8, comparisons=9)
    assert one < 0.05
    assert nine < 0.05


@pytest.mark.parametrize("seeds", [1, 9])
def test_looks_outside_the_plan(seeds: int) -> None:
    with pytest.raises(ValueError, match="seeds must be"):
        look_level(seeds, 8)
    with pytest.raises(ValueError, match="comparisons"):
        look_level(2, 8, comparisons=0)


def test_decided_stays_decided() -> None:
    before = ("undecided", "better", "one seed", "undecided")
    assert open_comparisons(before) == (0, 2, 3)
    assert settle(before, ["worse", "undecided", "undecided"]) == ("worse", "better", "undecided", "undecided")
    with pytest.raises(ValueError, match="3 comparisons are open"):
        settle(before, ["worse"])


def test_seeds_are_added_to_open_comparisons_alone() -> None:
    values, draws = next(world(3, 6, "1", "equal").sweeps(1))
    values[2] += 30
    end = look(values, draws, 100, 6)
    assert end.verdicts[1] == "better"
    assert end.seeds[1] < 6
    assert end.runs < 18
