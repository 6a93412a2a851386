"""Rules ask classes for facts: subclasses and classes of a user's own are judged like the built-in ones."""

from __future__ import annotations

from typing import Any

import pytest

from detlab.config.compose import compose_config, plain_config
from detlab.config.rules import check
from detlab.errors import ConfigError

OWN = "tests.config.own_parts."


def plain(*overrides: str) -> dict[str, Any]:
    return plain_config(compose_config("train", ["name=test", "paths.run_dir=.", *overrides]))


@pytest.mark.parametrize("family", ["Renamed", "FromScratch"])
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.proposals=grid"], "data.proposals is refused"),
        (["model/detect=proposals"], "model/detect is refused"),
        (["model/head=roi"], "model/head is refused"),
        (["+model/pool=roi_align"], "model/pool is refused"),
        (["training=alternating"], "training=alternating is refused"),
        (["training=svm"], "training=svm is refused"),
    ],
)
def test_a_family_of_ones_own_on_maps(family: str, overrides: list[str], sentence: str) -> None:
    config = plain("model=retinanet", *overrides)
    config["model"]["_target_"] = OWN + family
    with pytest.raises(ConfigError, match=sentence):
        check(config)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model/head=retinanet"], "a dense head on a RoI family"),
        (["model/sampler=hard_negative"], "loss-ranked sampling of RoIs"),
        (["model/pool=warp"], "crops of the image as a pool of maps"),
    ],
)
def test_a_family_of_ones_own_on_regions(overrides: list[str], sentence: str) -> None:
    config = plain("model=fast_rcnn", *overrides)
    config["model"]["_target_"] = OWN + "OnProposals"
    with pytest.raises(ConfigError, match=sentence):
        check(config)


def test_a_neck_of_ones_own_with_one_map() -> None:
    config = plain("model=ssd", "model/neck=hierarchy")
    check(config)
    config["model"]["neck"] = {"_target_": OWN + "OneMap", "_partial_": True}
    with pytest.raises(ConfigError, match="default boxes of several levels on one map"):
        check(config)


def test_a_matcher_of_ones_own_that_forces_no_match() -> None:
    config = plain("model=ssd")
    config["model"]["matcher"] = {"_target_": OWN + "NeverForces"}
    with pytest.raises(ConfigError, match=r"force_best=false is refused .* use model\.matcher\.force_best=true"):
        check(config)


def test_a_head_from_a_function_is_judged_by_what_it_returns() -> None:
    config = plain("model=retinanet")
    config["model"]["head"] = {"_target_": OWN + "own_head", "_partial_": True}
    with pytest.raises(ConfigError, match="a RoI head on a dense family"):
        check(config)


def test_a_target_that_does_not_exist_is_named() -> None:
    config = plain("model=retinanet")
    config["model"]["_target_"] = "nowhere.Family"
    with pytest.raises(ConfigError, match=r"_target_=nowhere.Family cannot be imported \(ModuleNotFoundError"):
        check(config)


def test_own_parts_that_fit_are_not_refused() -> None:
    config = plain("model=retinanet")
    config["model"]["_target_"] = OWN + "Renamed"
    check(config)


@pytest.mark.parametrize(
    ("overrides", "works"),
    [
        ([], False),
        (["data.canvas=[96, 96]"], True),
        (["data.canvas=[96, 96]", "+multiscale=yolo"], False),
        (["data.resize=warp", "data.size=[96, 96]"], True),
        (["data.canvas=[96, 96]", "tta=flip"], True),  # testing is not compiled
    ],
)
def test_compiling_needs_one_canvas(overrides: list[str], works: bool) -> None:
    overrides = [o.removeprefix("+") for o in overrides]
    config = plain("model=retinanet", "compile=true", *overrides)
    if works:
        check(config)
    else:
        with pytest.raises(ConfigError, match=r"compile=true is refused .* use data.canvas=\[HEIGHT, WIDTH\]"):
            check(config)


def test_a_monitored_loss_must_be_computed() -> None:
    check(plain("model=retinanet", "evaluation_loss=false"))
    with pytest.raises(ConfigError, match="evaluation_loss=false is refused"):
        check(plain("model=retinanet", "evaluation_loss=false", "monitor=val/loss"))
