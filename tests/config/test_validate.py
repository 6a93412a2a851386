"""Types and ranges: every key of the conf tree against wrong values, each refused by its full key before a build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.validate import validate, validate_node
from detlab.errors import ConfigError

CONF = config_dir()
WRONG = ("abc", "no", math.nan, math.inf, -math.inf, -1, 0.5, None, [1], [math.nan], True, {"a": 1})
TEXT = {  # keys that ship null or a number and also take text
    "classes", "cache_dir", "deterministic", "group", "init_from", "max_time", "monitor", "names", "precision",
    "process_group_backend", "profiler", "project", "proposals", "root", "test", "train", "val", "weights", "strategy",
}  # fmt: skip
NULL = {  # keys that ship a value and also take null
    "brightness", "cache_dir", "canvas", "check_val_every_n_epoch", "clip", "contrast", "crowd_overlap", "errors",
    "filename", "dirpath", "gradient_clip_val", "max_size", "max_test_size", "negative_filtering", "resize", "saturation", "topk",
    "topk_per_class", "voc_ap", "width", "prior", "l2_scales", "dilation", "norm", "spp_kernels", "every_n_minutes",
    "default_root_dir", "test", "train", "val", "process_group_backend", "scales", "logging_interval", "profiler",
}  # fmt: skip
NEGATIVE = {"alpha", "devices", "num_sanity_val_steps"}  # numbers below 0 mean something
EITHER = {"limit_train_batches", "limit_val_batches", "limit_test_batches", "devices", "size", "canvas", "ratios"}


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
        return False
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


def option_files() -> list[tuple[str, dict[str, Any]]]:
    """(group/option, node with `_target_`) of every file below conf/; interpolated values are left out."""
    found = []
    for file in sorted(CONF.rglob("*.yaml")):
        node = yaml.load(file.read_text(), Loader=yaml.SafeLoader) or {}
        if any("common" in str(d) for d in node.get("defaults", [])):
            node = yaml.load((file.parent / "common" / "default.yaml").read_text(), Loader=yaml.SafeLoader) | node
        if "_target_" in node and "common" not in file.parts and "hydra" not in file.parts:
            node.pop("defaults", None)
            node = {k: v for k, v in node.items() if not (isinstance(v, str) and "${" in v) and v != "???"}
            found.append((str(file.relative_to(CONF).with_suffix("")), node))
    return found


def check_mutations(config: Mapping[str, Any], at: str, command: str = "train") -> int:
    """Every value of a config replaced by every wrong one; how many were refused."""
    refused = 0
    for key, value in leaves(config):
        for wrong in WRONG:
            changed = with_value(config, key, wrong)
            full = f"{at}.{key}" if at else key
            try:
                validate_node(changed, at) if at else validate(changed, command)
            except ConfigError as error:
                assert str(error).startswith(f"{full}="), f"{full}={wrong}: {error}"
                assert " must be " in str(error)
                assert "\n" not in str(error)
                refused += 1
            else:
                assert may_stand(key, value, wrong), f"{full}={wrong} passes where {value!r} is shipped"
    return refused


@pytest.mark.parametrize(("option", "node"), option_files(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_value_of_any_option_is_refused_by_its_full_key(option: str, node: dict[str, Any]) -> None:
    key = option.rsplit("/", 1)[0].replace("/", ".")
    validate_node(node, key)
    refused = check_mutations(node, key)
    assert refused >= 5 * len(list(leaves(node)))
