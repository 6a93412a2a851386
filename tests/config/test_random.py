"""Random configs, groups and keys: each is refused in one sentence that names an option, or builds and trains a step.

Groups are drawn from the covering array of `combinations`; then up to three values anywhere below `model`, `optim`,
`lr_schedule` and `tta` are replaced by wrong, extreme or plausible ones. Run many with
`pytest tests/config/test_random.py -m many`.
"""

from __future__ import annotations

import collections
import copy
import math
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.config.parts import build_part
from detlab.config.rules import check
from detlab.config.validate import validate
from detlab.errors import ConfigError
from tests.batches import make_batch
from tests.config.combinations import covering_array, overrides
from tests.config.test_validate import WRONG, leaves, with_value

TOPS = ("model", "optim", "lr_schedule", "tta")
VALUES = (
    *WRONG,
    0,
    1,
    2,
    3,
    8,
    0.0,
    0.3,
    0.7,
    1.0,
    1.5,
    1e-9,
    1e9,
    False,
    "bn",
    "gn",
    "C3",
    [],
    [1.0],
    [0.5, 2.0],
    [3, 5],
)
SMALL = {  # so that most steps take a fraction of a second
    "model.sampler.size": 8,
    "model.head.width": 16,
    "model.neck.width": 32,
    "model.connection.width": 32,
    "model.pool.crop": 64,
    "model.proposals.sampler.size": 8,
}
STEPS_OF_A_RUN = 10


@cache
def rows() -> list[list[str]]:
    """Group choices without the deep backbones, which differ from the shallow ones in numbers alone."""
    shallow = [overrides(row) for row in covering_array() if row[1] == "resnet18" or row[1] == "vgg16"]
    return [[word for word in words if word != "model/backbone=vgg16"] for words in shallow]


@cache
def base(number: int) -> dict[str, Any]:
    words = [*rows()[number], "name=x", "paths.run_dir=.", "data.size=64"]
    config = plain_config(compose_config("train", words))
    known = dict(leaves({top: config[top] for top in TOPS}))
    for key, value in SMALL.items():
        config = with_value(config, key, value) if key in known else config
    return config


def draws(seed: int, count: int) -> Iterator[tuple[list[str], dict[str, Any], dict[str, Any]]]:
    """(group choices, values changed, config)."""
    rng = random.Random(seed)
    for _ in range(count):
        number = rng.randrange(len(rows()))
        config = base(number)
        keys = [key for key, _ in leaves({top: config[top] for top in TOPS})]
        changed = {rng.choice(keys): rng.choice(VALUES) for _ in range(rng.randint(0, 3))}
        for key, value in changed.items():
            config = with_value(config, key, copy.deepcopy(value))
        yield rows()[number], changed, config


def outcome(config: dict[str, Any]) -> str:
    """Refused: by `value`, by a `rule` or by a `part`. Or `trained`, with every loss and box checked to be finite."""
    for kind, look in (("value", validate), ("rule", check)):
        if told(lambda look=look: look(config)):
            return kind
    made: dict[str, Any] = {}

    def build() -> None:
        made["detector"] = make_detector(config["model"], 3)
        made["optimizer"] = build_part(config["optim"])(made["detector"], total_batch=2)
        made["schedule"] = build_part(config["lr_schedule"])(made["optimizer"], STEPS_OF_A_RUN)

    if words := told(build):
        assert "model" in words or "optim" in words, words
        return "part"
    detector, optimizer = made["detector"], made["optimizer"]
    batch = make_batch([[[4, 4, 36, 30]], [[10, 8, 50, 60], [2, 2, 20, 20]]], [[0], [1, 2]], side=64)
    losses = detector.train().loss(batch)
    assert all(math.isfinite(value.item()) for value in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    made["schedule"].step()
    return "trained"


def told(work: Callable[[], Any]) -> str:
    """The sentence that refuses; empty where nothing does."""
    try:
        work()
    except ConfigError as error:
        words = str(error)
    else:
        return ""
    assert words
    assert "\n" not in words
    return words


def run(seed: int, count: int) -> collections.Counter[str]:
    ends: collections.Counter[str] = collections.Counter()
    for choices, changed, config in draws(seed, count):
        try:
            ends[outcome(config)] += 1
        except Exception as error:
            raise AssertionError(f"{' '.join(choices)} with {changed}: {type(error).__name__}: {error}") from error
    return ends


def test_some_random_configs() -> None:
    ends = run(seed=1, count=15)
    assert ends["value"] > 1
    assert ends["trained"] > 1


@pytest.mark.many
@pytest.mark.parametrize("seed", range(30))
def test_random_configs(seed: int) -> None:
    """30 x 100 configs."""
    assert sum(run(seed=seed + 100, count=100).values()) == 100
