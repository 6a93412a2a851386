"""Types and ranges: every key of the conf tree against wrong values, each refused by its full key before a build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.keys import TOP
from detlab.config.validate import sentence, validate, validate_node, value_faults
from detlab.errors import ConfigError

CONF = config_dir()
WRONG = ("abc", "no", math.nan, math.inf, -math.inf, -1, 0.5, None, [1], [math.nan], True, {"a": 1})
TEXT = {  # keys that ship null or a number and also take text
    "classes", "cache_dir", "deterministic", "group", "init_from", "max_time", "monitor", "names", "precision",
    "process_group_backend", "profiler", "project", "proposals", "root", "test", "train", "val", "weights", "strategy",
    "batch", "file", "answer", "json", "images", "annotations", "labels",
    "run", "recall",
}  # fmt: skip
NULL = {  # keys that ship a value and also take null
    "factors", "sizes",  # of multiscale, one of which is null
    "ignore", "pad_value", "squeeze", "hue", "images", "annotations",
    "brightness", "cache_dir", "canvas", "check_val_every_n_epoch", "clip", "contrast", "crowd_overlap", "errors",
    "filename", "dirpath", "gradient_clip_val", "max_size", "max_test_size", "negative_filtering", "resize", "topk",
    "saturation", "deterministic", "run_dir", "most_images", "side",
    "topk_per_class", "voc_ap", "width", "prior", "l2_scales", "dilation", "norm", "spp_kernels", "every_n_minutes",
    "default_root_dir", "test", "train", "val", "process_group_backend", "scales", "logging_interval", "profiler",
}  # fmt: skip
NEGATIVE = {"alpha", "devices", "num_sanity_val_steps"}  # numbers below 0 mean something
EITHER = {  # a list, or a fraction, where a whole number or null is shipped, too
          "limit_train_batches", "limit_val_batches", "limit_test_batches", "devices", "size", "canvas", "ratios",
          "timeout_s", "start_timeout_s", "worker_timeout_s", "ratio", "every_n_minutes"}  # fmt: skip


@cache
def shipped(*choices: str) -> dict[str, Any]:
    return plain_config(compose_config("train", ["name=x", "paths.run_dir=.", *choices]))


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of every plain value; a list is one value."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{key}{name}.")
        elif not str(name).startswith("_"):
            yield f"{key}{name}", value


def with_value(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with one value changed; the rest is shared."""
    first, _, rest = key.partition(".")
    return {**config, first: with_value(config[first], rest, value) if rest else value}


def may_stand(key: str, shipped: Any, wrong: Any) -> bool:
    """What the shipped value says of another one, without a look at annotations."""
    last = key.rsplit(".", 1)[-1]
    if isinstance(wrong, dict):
        return last == "measured_noise"  # numbers by the names of metrics
    if isinstance(wrong, list):
        return wrong == [1] and (shipped is None or isinstance(shipped, list) or last in EITHER)
    if wrong is None:
        return shipped is None or last in NULL
    if isinstance(wrong, str):
        return last in TEXT or isinstance(shipped, str)
    if isinstance(wrong, bool):
        return isinstance(shipped, bool)
    if not math.isfinite(wrong):
        return False
    if wrong == -1:
        return last in NEGATIVE
    return isinstance(shipped, float) or shipped is None or last in EITHER


def check_top(config: Mapping[str, Any], top: str, command: str) -> None:
    """Every value at and below a top key replaced by every wrong one."""
    contract = TOP[command][top] if command else Any
    for key, value in leaves(config[top], f"{top}.") if isinstance(config[top], Mapping) else [(top, config[top])]:
        for wrong in WRONG:
            rest = key.removeprefix(top).removeprefix(".")
            changed = with_value(config[top], rest, wrong) if rest else wrong
            told = next((sentence(fault, {}) for fault in value_faults(changed, contract, top)), "")
            if told:
                assert told.startswith((f"{key}=", f"{key}.")), f"{key}={wrong}: {told}"
            else:
                assert may_stand(key, value, wrong), f"{key}={wrong} passes where {value!r} is shipped"


def option_files() -> list[tuple[str, dict[str, Any]]]:
    """(group/option, node with `_target_`) of every file below conf/; interpolated values are left out."""
    found = []
    for file in sorted(CONF.rglob("*.yaml")):
        node = yaml.load(file.read_text(), Loader=yaml.SafeLoader) or {}
        shared = (d.get("common@_here_") for d in node.get("defaults", []) if isinstance(d, dict))
        for name in filter(None, list(shared)):
            node = yaml.load((file.parent / "common" / f"{name}.yaml").read_text(), Loader=yaml.SafeLoader) | node
        if "_target_" in node and "common" not in file.parts and "hydra" not in file.parts:
            node.pop("defaults", None)
            node = {k: v for k, v in node.items() if not (isinstance(v, str) and "${" in v) and v != "???"}
            found.append((str(file.relative_to(CONF).with_suffix("")), node))
    return found


@pytest.mark.parametrize(("option", "node"), option_files(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_value_of_any_option_is_refused_by_its_full_key(option: str, node: dict[str, Any]) -> None:
    key = option.rsplit("/", 1)[0].replace("/", ".")
    validate_node(node, key)
    check_top({key: node}, key, "")


@pytest.mark.parametrize("family", ["retinanet", "faster_rcnn", "refinedet", "sppnet"])
def test_a_wrong_value_of_a_whole_config_is_refused_by_its_full_key(family: str) -> None:
    config = shipped(f"model={family}")
    validate(config)
    for top in config:
        check_top(config, top, "train")


@pytest.mark.parametrize("command", sorted(TOP))
def test_every_top_key_of_a_command_has_a_contract(command: str) -> None:
    node = yaml.load((CONF / f"{command}.yaml").read_text(), Loader=yaml.SafeLoader)
    assert set(node) - {"defaults", "hydra"} <= set(TOP[command])
    plain = {k: v for k, v in node.items() if k not in ("defaults", "hydra") and v != "???" and "${" not in str(v)}
    for top in plain:
        check_top(plain, top, command)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.detect.max_detections", "abc", "a whole number from 1 to 100000; use model.detect.max_detections=100."),
        ("model.detect.max_detections", None, "a whole number from 1 to 100000; use model.detect.max_detections=100."),
        ("model.neck.lateral", "no", "true or false; use model.neck.lateral=false."),
        ("model.neck.lateral", "yes", "true or false; use model.neck.lateral=true."),
        ("model.neck.lateral", "abc", "true or false; use model.neck.lateral=true."),
        ("model.head.prior", 1, "a number above 0 and below 1, or null; use model.head.prior=0.01."),
        ("optim.betas", [1], "a list of 2 entries, each a number from 0 to below 1; use 'optim.betas=[0.9,0.999]'."),
        ("trust", "mine", "a list, each text; use trust=[mine]."),
        ("data.root", 2024, "text, or null; use 'data.root=\"2024\"'."),
        ("optim.lr_scaling", "foo", "linear, sqrt or none; use optim.lr_scaling=sqrt."),
        ("resume", "no", "true or false; use resume=false."),
        ("model.head", None, "a part with options of its own, chosen by its group."),
    ],
)  # fmt: skip
def test_what_is_said(key: str, value: Any, told: str) -> None:
    config = shipped("model=retinanet")
    with pytest.raises(ConfigError) as error:
        validate(with_value(config, key, value), shipped=lambda: config)
    assert str(error.value).split(" must be ", 1)[1] == told


def test_nothing_is_missing_without_a_word() -> None:
    config = shipped("model=retinanet")
    for key in ("optim", "callbacks", "logger", "augment", "tta", "data", "lr_schedule", "trainer", "training"):
        rest = {k: v for k, v in config.items() if k != key}
        with pytest.raises(ConfigError, match=rf"^{key} "):
            validate(rest, shipped=lambda: config)
