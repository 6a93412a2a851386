"""Settings of experiment=small_data by data, machine and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detlab.config.compose import compose_config, plain_config
from detlab.data.records import Record, record
from detlab.training.small_data import (
    Facts,
    anchor_candidates,
    as_time,
    facts_of,
    passes_in,
    settings,
    size_for,
    size_within,
)


def photo(size: tuple[int, int], *boxes: list[float], crowd: bool = False) -> Record:
    objects: list[dict[str, Any]] = [{"box": box, "label": 0, "crowd": crowd} for box in boxes]
    return record(id=1, name="a", path=None, size=size, objects=objects)


def facts(low: float, high: float, short: float = 480, ratio: float = 1.0) -> Facts:
    return Facts(160, short, np.geomspace(low, high, 200), np.full(200, ratio))


def test_facts_are_shares_of_the_shorter_side() -> None:
    found = facts_of([photo((100, 300), [0, 0, 40, 10]), photo((200, 200), [0, 0, 50, 200]), photo((80, 80))])
    assert found.images == 3
    assert found.short_side == 100
    assert found.extents == pytest.approx([0.2, 0.5])
    assert found.ratios == pytest.approx([0.25, 4])
    assert len(facts_of([photo((9, 9), [0, 0, 3, 3]), photo((9, 9), [0, 0, 3, 3], crowd=True)]).extents) == 1


@pytest.mark.parametrize(
    ("low", "short", "gpu", "size"),
    [
        (0.5, 480, False, 192),  # large boxes: the smallest size
        (0.08, 480, False, 256),  # 20 px at 0.08 of 250 px
        (0.01, 480, False, 416),
        (0.01, 2000, True, 800),
        (0.01, 200, False, 224),  # no larger than the images are
        (0.01, 60, False, 192),
    ],
)
def test_the_size_keeps_small_boxes_visible(low: float, short: float, gpu: bool, size: int) -> None:
    assert size_for(facts(low, low * 1.001, short), gpu) == size


def test_a_short_time_makes_the_canvas_smaller() -> None:
    assert size_within(256, 25) == size_within(256, 400) == 256
    assert size_within(256, 25 / 2) == 160  # 256 / sqrt(2) is 181
    assert size_within(256, 0.1) == 128


def sizes_of(anchors: dict[str, list[float]]) -> list[float]:
    return [size * octave for size in anchors["sizes"] for octave in anchors["octaves"]]


def test_anchors_reach_from_the_small_boxes_to_the_large() -> None:
    own, tall, even, upright = anchor_candidates(facts(0.05, 0.9, ratio=2.0), 384)
    assert own == {"sizes": [40.0, 100.6, 253.1], "octaves": [1.0, 1.36, 1.85], "ratios": [0.5, 1.0, 2.0]}
    assert tall == own | {"ratios": [2.0]}
    assert upright == even | {"ratios": [0.5, 1.0, 2.0]}
    sizes = sizes_of(even)
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(0.05 * 384, rel=0.15)
    assert sizes[-1] == pytest.approx(0.9 * 384, rel=0.15)
    one = sizes_of(anchor_candidates(facts(0.5, 0.5001), 200)[2])
    assert min(abs(size / 100 - 1) for size in one) < 0.13
    assert one[1] / one[0] == pytest.approx(1.26)
    large = sizes_of(anchor_candidates(facts(0.4, 1.1), 200)[2])  # 80 to 220 px
    assert large[0] == pytest.approx(32, rel=0.05)
    assert large[-1] == pytest.approx(220, rel=0.05)


def test_the_experiment_s_own_anchors_are_the_first_candidate_at_its_own_size() -> None:
    config = plain_config(compose_config("train", ["experiment=small_data", "name=x", "paths.run_dir=x"]))
    own = anchor_candidates(facts(0.1, 0.9), config["data"]["size"])[0]
    given = config["model"]["anchors"]
    assert sizes_of(own) == pytest.approx(sizes_of(given), rel=0.01)
    assert own["ratios"] == given["ratios"]


def test_the_length_fills_the_time() -> None:
    passes = passes_in(600, 0.4, 4, 150)
    assert passes == pytest.approx(0.95 * 0.9 * 600 / 0.1 / 150)
    found = settings(facts(0.2, 0.8), 192, passes, 600, evaluation_s=2.0)
    assert found["trainer.max_time"] == "00:00:10:00"
    assert found["trainer.max_epochs"] >= 2 * passes  # so that the time ends training
    assert found["trainer.check_val_every_n_epoch"] == 6  # 34 passes, 6 evaluations
    assert found["data.max_size"] == 288
    assert "data.cache" not in found
    many = settings(facts(0.2, 0.8)._replace(images=20_000), 192, passes, 600, evaluation_s=2.0)
    assert many["data.cache"] == "none"  # 6.6 GB
    rare = settings(facts(0.2, 0.8), 192, 12, 600, evaluation_s=30.0)  # two evaluations are a tenth of the time
    assert rare["trainer.check_val_every_n_epoch"] == 6
    long = settings(facts(0.2, 0.8), 192, 0.5, 600, evaluation_s=900.0)
    assert long["trainer.check_val_every_n_epoch"] == 1


@pytest.mark.parametrize(("seconds", "text"), [(600, "00:00:10:00"), (90061, "01:01:01:01"), (0.2, "00:00:00:01")])
def test_times_as_the_trainer_takes_them(seconds: float, text: str) -> None:
    assert as_time(seconds) == text
