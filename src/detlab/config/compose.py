"""Configs: composing them, and refusing in one sentence what does not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import detlab.config.resolvers  # noqa: F401 - registers what conf/ names
from detlab.config.explaining import explain
from detlab.config.parts import build_part
from detlab.config.places import choices_among, compose_quietly, config_dir
from detlab.config.rules import check
from detlab.config.typed import check_overrides
from detlab.config.validate import validate, validate_node
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
        ConfigError: an unknown key or option, with the nearest that exists.
    """
    check_overrides(overrides)
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
        ConfigError: the choices do not fit.
    """
    with_paths = [*overrides, "name=notebook", "paths.run_dir=."]
    plain = plain_config(compose_config("train", with_paths), keys=("model", "init_from", "resume", "trainer"))
    validate_node(plain["model"], "model")
    check(plain)
    return make_detector(plain["model"], num_classes)


def make_detector(model: Mapping[str, Any], num_classes: int) -> Detector:
    """Instantiate a plain model config.

    Raises:
        ConfigError: what a part refused, in its own words.
    """
    return build_part(model, num_classes=num_classes)


def valid_config(config: DictConfig, command: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A command's config as plain containers, resolved, with every key of a type and range that its taker knows.

    Args:
        config: composed.
        command: whose top keys these are.
        overrides: of the command line, for the values that the chosen options ship with.

    Raises:
        ConfigError: the first wrong key or value.
    """
    plain = plain_config(config, keys=[str(key) for key in config if key != "hydra"])
    validate(plain, command, lambda: _shipped(command, overrides))
    return plain


def plain_config(config: DictConfig, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """A config as plain containers, resolved; some keys only, if given."""
    chosen = [str(key) for key in config] if keys is None else keys
    parts = {key: config[key] for key in chosen}  # resolved inside the whole, which their interpolations may name
    return {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in parts.items()}


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits of what a run is, without where it lies and how it is resumed."""
    kept = {k: v for k, v in config.items() if k not in NOT_IN_HASH}
    text = json.dumps(kept, sort_keys=True, default=str)
    run_dir = (config.get("paths") or {}).get("run_dir")
    if run_dir:
        text = text.replace(str(run_dir), "RUN")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def open_keys(name: str, overrides: Iterable[str]) -> list[str]:
    """Overrides with those keys of `detlab evaluate` made free that change the run's own config.

    Its data and detect nodes are empty, since only the run knows their keys; `evaluate` refuses those that it lacks.
    """
    free = ("data.", "detect.") if name == "evaluate" else ()
    return [f"++{o}" if free and o.startswith(free) else o for o in overrides]


def _shipped(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of the groups that overrides choose, without their single values; empty where it does not compose."""
    try:
        config = compose_quietly(command, choices_among(overrides))
    except (HydraException, OmegaConfBaseException):
        return {}
    shipped: Any = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in shipped.items()}
