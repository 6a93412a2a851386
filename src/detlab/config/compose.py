"""Compose and check configs; each mistake is reported in one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import detlab.config.resolvers  # noqa: F401 - registers what conf/ names
from detlab.config.catalogue import group_comments, group_options
from detlab.config.explaining import explain
from detlab.config.parts import build_part
from detlab.config.places import choices_among, compose_quietly, config_dir
from detlab.config.rules import check
from detlab.config.typed import check_overrides
from detlab.config.validate import MISSING, has_option, refuse_faults, validate, validate_node, written
from detlab.errors import ConfigError

if TYPE_CHECKING:
    from detlab.detectors import Detector

__all__ = [
    "build_detector",
    "compose_config",
    "config_dir",
    "config_hash",
    "make_detector",
    "open_keys",
    "plain_config",
    "valid_config",
]

NOT_IN_HASH = ("config_hash", "resume", "paths", "name", "threads", "hydra", "answer", "paper", "measured_noise")


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose one of the top configs ("train", "evaluate", "predict").

    Raises:
        ConfigError: a key or option does not exist; the message suggests the most similar name.
    """
    check_overrides(overrides, name)
    try:
        return compose_quietly(name, open_keys(name, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, name, overrides)) from error


def build_detector(overrides: Sequence[str] = (), *, num_classes: int) -> Detector:
    """A detector from config choices, as `detlab train` would build it.

    Args:
        overrides: such as ["model=retinanet", "model/backbone=resnet50"].
        num_classes: K, without background.

    Raises:
        ConfigError: the options are not compatible.
    """
    with_paths = [*overrides, "name=notebook", "paths.run_dir=."]
    plain = plain_config(compose_config("train", with_paths), keys=("model", "init_from", "resume", "trainer"))
    validate_node(plain["model"], "model")
    check(plain)
    return make_detector(plain["model"], num_classes)


def make_detector(model: Mapping[str, Any], num_classes: int) -> Detector:
    """Instantiate a detector from its config as plain containers.

    Raises:
        ConfigError: the constructor of a part raised an error; the message is that error's.
    """
    return build_part(model, num_classes=num_classes)


def valid_config(config: DictConfig, command: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A command's config as plain containers, resolved, with the type and range of every key checked.

    Args:
        config: composed config.
        command: name of the command, which determines the allowed top-level keys.
        overrides: from the command line; error messages use them to look up the default of a wrong key.

    Raises:
        ConfigError: the first wrong key or value.
    """
    _refuse_taken(config, command, overrides)
    _refuse_idle(config, command, overrides)
    keys = [str(key) for key in config if key != "hydra"]
    written: Any = OmegaConf.to_container(config, resolve=False)
    own = _own_values({key: written[key] for key in keys})
    refuse_faults(own, command, lambda: _shipped(command, overrides))  # paths=5, not a key that reads ${paths.run_dir}
    plain = plain_config(config, keys=keys)
    validate(plain, command, lambda: _shipped(command, overrides))
    return plain


def _refuse_taken(config: DictConfig, command: str, overrides: Iterable[str]) -> None:
    """Refuse an override ~KEY that takes an option away from the part that has it, or the `paths` of a command.

    An entry of a map (~callbacks.early_stop), and an option that the chosen part does not have, may be taken away.

    Raises:
        ConfigError: names the option and its default.
    """
    for text in overrides:
        key = text[1:].partition("=")[0].replace("/", ".")
        parent, _, name = key.rpartition(".")
        if not text.startswith("~"):
            continue
        node: Any = OmegaConf.select(config, parent, throw_on_resolution_failure=False) if parent else None
        target = str(node["_target_"]) if isinstance(node, DictConfig) and "_target_" in node else ""
        if key.split(".")[0] == "paths" or (target and has_option(target, name)):
            node = _shipped(command, [o for o in overrides if o != text])
            for part in key.split("."):
                node = node.get(part) if isinstance(node, Mapping) else None
            works = f"{key}={written(node)}" if isinstance(node, str | int | float) else "a value or an option of it"
            raise ConfigError(f"{key} was taken away, and {target or f'detlab {command}'} needs it; use {works}.")


def _refuse_idle(config: DictConfig, command: str, overrides: Iterable[str]) -> None:
    """Refuse KEY={} where KEY has keys: Hydra changes the keys that the braces name, none here, and keeps the others.

    Raises:
        ConfigError: names the option and what would change something.
    """
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if "".join(value.split()) != "{}":
            continue
        node = OmegaConf.select(config, key, throw_on_resolution_failure=False)
        if not isinstance(node, DictConfig) or not len(node):
            continue
        options = group_options().get(key, ()) if key in group_comments(command) else ()
        works = [f"{key}=none" if "none" in options else f"an option, {key}={options[0]}"] if options else []
        inside = _first_value(node)
        works += [f"single keys, {key}.{inside}=VALUE"] if inside and "none" not in options else []
        works = works or [f"values of its keys, {key}.NAME=VALUE"]
        raise ConfigError(
            f"{key}={{}} changes nothing, since all its keys keep their values; use {', or '.join(works)}."
        )


def _first_value(node: DictConfig) -> str:
    """The first key of a node, or of the nodes inside it, that holds no node; empty if there is none."""
    for name in map(str, node):
        inner = node._get_node(name)
        inside = _first_value(inner) if isinstance(inner, DictConfig) else ""
        if inside or (not isinstance(inner, DictConfig) and not name.startswith("_")):
            return f"{name}.{inside}" if inside else name
    return ""


def _own_values(node: Any) -> Any:
    """A node in plain containers without the values that are read from elsewhere (`${...}`) or must be given (???)."""
    if not isinstance(node, Mapping):
        return node
    return {key: _own_values(value) for key, value in node.items() if not _is_open(value)}


def _is_open(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _is_open(value.get("_target_"))
    if isinstance(value, list):
        return any(_is_open(one) or (isinstance(one, Mapping) and one != _own_values(one)) for one in value)
    return isinstance(value, str) and ("${" in value or value == MISSING)


def plain_config(config: DictConfig, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """A config as plain containers, resolved; restricted to `keys` if given."""
    chosen = [str(key) for key in config] if keys is None else keys
    parts = {key: config[key] for key in chosen}  # children of `config`, so interpolations of other keys resolve
    return {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in parts.items()}


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash of a run's config (12 hex digits), without its location and the keys that do not change its result."""
    kept = {k: v for k, v in config.items() if k not in NOT_IN_HASH}
    text = json.dumps(kept, sort_keys=True, default=str)
    run_dir = (config.get("paths") or {}).get("run_dir")
    if run_dir:
        text = text.replace(json.dumps(str(run_dir))[1:-1], "RUN")  # as the text has it, with escapes
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def open_keys(name: str, overrides: Iterable[str]) -> list[str]:
    """Overrides in which the data.* and detect.* keys of `detlab evaluate` are marked ++, so that Hydra accepts them.

    Only the run's stored config knows these keys: both nodes are empty in evaluate.yaml, and `detlab evaluate` checks
    the keys against the run.
    """
    free = ("data.", "detect.") if name == "evaluate" else ()
    return [f"++{o}" if free and o.startswith(free) else o for o in overrides]


def _shipped(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config composed from the group choices among the overrides, without values set for single keys.

    Empty if it does not compose.
    """
    try:
        config = compose_quietly(command, choices_among(overrides))
    except (HydraException, OmegaConfBaseException):
        return {}
    shipped: Any = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in shipped.items()}
