"""The command that `detlab check minutes=10` proposes: experiment=small_data fitted to data, machine and time."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from detlab.commands.anchors import MOST_POSITIVES, stage_of
from detlab.config.compose import compose_config, valid_config
from detlab.data import DetectionData
from detlab.data.transforms import Resize
from detlab.errors import ConfigError
from detlab.metrics.anchor_coverage import AnchorStage, Placement, coverage, coverage_report
from detlab.system.printing import say
from detlab.training.build import make_data
from detlab.training.small_data import (
    ON_GPU,
    PASSES,
    Facts,
    anchor_candidates,
    as_time,
    facts_of,
    longest,
    passes_in,
    settings,
    size_for,
    size_within,
)

EXPERIMENT = "experiment=small_data"
OF_CHECK = ("steps", "batches", "minutes", "batch", "hydra.run.dir", "hydra.mode")  # no keys of detlab train
FIXED = ("model", "experiment", "budget", "ablation", "data.resize")  # what the proposal is about
TIMED_STEPS = 8
COVERED_IMAGES = 100
Measure = Callable[[dict[str, Any]], tuple[float, float] | None]


def propose(config: Mapping[str, Any], words: Sequence[str], measure: Measure) -> bool:
    """Measure experiment=small_data on this data and machine, and print the command that fits the time.

    Args:
        config: of detlab check.
        words: its overrides.
        measure: checks a config and gives seconds of a step and of an evaluated image; None where it failed.

    Returns:
        Whether there is a command.

    Raises:
        ConfigError: the overrides choose another experiment or model.
        DataError: no training image has a box.
    """
    seconds = 60.0 * config["minutes"]
    given = _given(words)
    gpu = config["trainer"]["accelerator"] != "cpu"
    if "trainer" not in _keys(given) and torch.cuda.is_available():
        given, gpu = [*given, "trainer=gpu"], True
    given = _words(given, ON_GPU if gpu else {})
    data = make_data(_composed(given, config))
    facts = facts_of([r for r in data.records("train") if (~r.crowd).any()])._replace(images=len(data.records("train")))
    size = config["data"]["size"] if "data.size" in _keys(given) else size_for(facts, gpu)
    tried = _words(
        given, {"data.size": size, **_anchors(data, facts, size, config), "trainer.max_time": as_time(seconds)}
    )
    chosen = _composed([*tried, *_steps(words)], config)
    measured = measure(chosen)
    if measured is None:
        return False
    step, image = measured
    batch = chosen["data"]["batch_size"]
    passes = passes_in(seconds, step, batch, facts.images)
    if "data.size" not in _keys(given) and size_within(size, passes) < size:
        smaller = size_within(size, passes)
        passes *= (size / smaller) ** 2
        image *= (smaller / size) ** 2
        say(f"size        {smaller} px in place of {size}, for more passes in the time")
        size = smaller
    found = settings(facts, size, passes, seconds, image * len(data.records("val")), gpu)
    found |= _anchors(data, facts, size, config)
    _say_facts(data, facts, passes, config["minutes"])
    command = ["detlab", "train", *_words(given, found)]
    say("command", style="bold")
    print(" ".join(shlex.quote(word) for word in command))  # not through rich, which would break the line
    return True


def _given(words: Sequence[str]) -> list[str]:
    """The user's words that detlab train takes, with the experiment.

    Raises:
        ConfigError: another experiment, model or way of resizing is among them.
    """
    kept = [word for word in words if word.partition("=")[0] not in OF_CHECK]
    for word in kept:
        key = word.partition("=")[0]
        listed = key == "data.size" and word.endswith("]")
        if (key in FIXED and word != EXPERIMENT) or listed:
            raise ConfigError(
                f"minutes proposes settings of {EXPERIMENT}, so {word} has no place beside it; leave {word} or minutes "
                f"out."
            )
    return kept if EXPERIMENT in kept else [EXPERIMENT, *kept]


def _keys(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0].lstrip("+") for word in words}


def _words(given: Sequence[str], found: Mapping[str, Any]) -> list[str]:
    """The user's words, and a word of each setting that they leave open."""
    open_ = {key: value for key, value in found.items() if key not in _keys(given)}
    return [*given, *(f"{key}={_shown(value)}" for key, value in open_.items())]


def _shown(value: Any) -> str:
    return "[" + ",".join(map(_shown, value)) + "]" if isinstance(value, list) else str(value)


def _anchors(data: DetectionData, facts: Facts, size: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """The candidates' best: most coverage, then the highest mean IoU, among those with positives in range."""
    resize = Resize(mode="short_side", size=size, max_size=longest(size))
    stage = stage_of(_composed([EXPERIMENT], config), data)
    truth, place = data.ground_truth("train"), Placement(resize.target, data.collate.divisor, None)

    def judged(anchors: Mapping[str, list[float]]) -> tuple[bool, float, float]:
        changed = _replaced(stage, anchors)
        row = coverage_report(coverage(changed, truth, place, COVERED_IMAGES), changed, truth.crowd.numpy())["all"]
        return row["positives"] <= MOST_POSITIVES, round(row["recall_0.5"], 2), row["iou"]

    best = max(anchor_candidates(facts, size), key=judged)
    return {f"model.anchors.{key}": value for key, value in best.items()}


def _replaced(stage: AnchorStage, values: Mapping[str, list[float]]) -> AnchorStage:
    anchors = copy.deepcopy(stage.anchors)
    for key, value in values.items():
        setattr(anchors, key, value)
    return stage._replace(anchors=anchors)


def _steps(words: Sequence[str]) -> list[str]:
    own = [word for word in words if word.partition("=")[0] in ("steps", "batches")]
    return own if "steps" in _keys(own) else [*own, f"steps={TIMED_STEPS}"]


def _composed(words: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of detlab check in the folder of `config`."""
    words = [*words, f"++paths.run_dir={config['paths']['run_dir']}", "name=check"]
    return valid_config(compose_config("check", words), "check", words)


def _say_facts(data: DetectionData, facts: Facts, passes: float, minutes: float) -> None:
    tests = len(data.records("test")) if data.has("test") else 0
    say(
        f"data        {facts.images} training images, {len(facts.extents)} boxes, from {facts.extents.min():.0%} to "
        f"{facts.extents.max():.0%} of an image's shorter side"
    )
    say(f"time        {minutes:g} minutes are {passes:.1f} passes over the training images")
    if passes < PASSES / 2:
        say(f"note        {PASSES} passes would take {minutes * PASSES / passes:.0f} minutes; AP grows until then")
    if not tests:
        say("note        without a test split the result flatters the run; data.test_fraction=0.2 sets images aside")
