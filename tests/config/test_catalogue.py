"""What conf/ says of itself: groups, options, and keys with the comments of the files they come from."""

from __future__ import annotations

import pytest

from detlab.config.catalogue import command_names, group_comments, group_options, keys_of_command, read_option
from detlab.config.compose import compose_config
from detlab.errors import ConfigError


def test_every_option_can_be_read_and_says_what_it_is() -> None:
    silent = []
    for group, names in group_options().items():
        for name in names:
            option = read_option(group, name)
            if not option.summary:
                silent.append(f"{group}={name}")
    assert silent == []


def test_shared_files_are_no_options() -> None:
    assert not [group for group in group_options() if "common" in group]
    assert {"fpn", "fpn_p2", "none"} <= set(group_options()["model/neck"])


def test_an_option_has_the_keys_of_the_file_it_includes() -> None:
    small = {key.name: key for key in read_option("model/neck", "fpn_small").keys}
    assert small["width"].value == "64"
    assert small["lateral"].value == "true"
    assert "FPN table 1 e" in small["lateral"].comment


def test_a_value_of_its_own_keeps_the_comment_of_the_shared_file() -> None:
    yolo = {key.name: key for key in read_option("model/detect", "yolo").keys}
    assert (yolo["score_threshold"].value, yolo["score_threshold"].comment) == ("0.005", "scores must be above")


@pytest.mark.parametrize(
    ("group", "name"), [("model/neck", "fpn_small"), ("optim", "sgd"), ("data", "shapes"), ("trainer", "gpu")]
)
def test_values_are_those_that_hydra_composes(group: str, name: str) -> None:
    config = compose_config("train", ["name=x", "paths.run_dir=/x", f"{group}={name}"])
    node = config
    for part in group.split("/"):
        node = node[part]
    option = read_option(group, name)
    assert {key.name.split(".")[0] for key in option.keys} <= set(node)
    plain = {key.name: key.value for key in option.keys if key.value.isdigit()}
    assert plain
    assert {name: int(value) for name, value in plain.items()} == {name: node[name] for name in plain}


def test_options_that_set_keys_anywhere_say_what_they_choose() -> None:
    option = read_option("experiment", "yolov2_voc")
    assert option.package == ""
    assert option.chosen["model/backbone"] == "darknet19"
    assert option.summary.startswith("YOLOv2 on VOC")


def test_a_command_adds_its_keys_to_those_of_train() -> None:
    assert "train" in command_names()
    assert [key.name for key in keys_of_command("data")] == ["json", "pictures"]
    assert group_comments("data") == group_comments("train")
    assert group_comments("train")["model"][0] == "retinanet"
    assert set(group_comments("predict")) == {"tta"}


def test_what_is_near_is_named() -> None:
    with pytest.raises(ConfigError, match="no group model/nek; did you mean model/neck?"):
        read_option("model/nek", "fpn")
    with pytest.raises(ConfigError, match="model/neck has no option fpm; did you mean fpn?"):
        read_option("model/neck", "fpm")
