"""Configs: where they lie, composing them, and refusing in one sentence what does not fit."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import detlab.config.sweep_name  # noqa: F401 - the resolver that conf/train.yaml names
from detlab.config.rules import check
from detlab.errors import ConfigError

if TYPE_CHECKING:
    from detlab.detectors import Detector

NOT_IN_HASH = ("config_hash", "resume", "paths", "name", "threads", "hydra", "answer", "measured_noise")
MODEL_PARTS = {  # keys under model that are groups, wherever they stand
    "backbone",
    "neck",
    "anchors",
    "matcher",
    "sampler",
    "coder",
    "cls_loss",
    "obj_loss",
    "box_loss",
    "head",
    "proposals",
    "arm",
    "pool",
    "detect",
    "criterion",
}


def config_dir() -> Path:
    """The conf/ folder: at the top of a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"The configs are not where they belong, {package / 'conf'}; install detlab again.")


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose one of the top configs ("train", "evaluate", "predict").

    Raises:
        ConfigError: an unknown key or option, with the nearest that exists.
    """
    GlobalHydra.instance().clear()
    try:
        check_overrides(overrides)
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose(name, overrides=open_keys(name, overrides), return_hydra_config=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, name)) from error


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
    check(plain)
    return make_detector(plain["model"], num_classes)


def make_detector(model: Mapping[str, Any], num_classes: int) -> Detector:
    """Instantiate a plain model config.

    Raises:
        ConfigError: what a part refused, in its own words.
    """
    try:
        return instantiate(dict(model), num_classes=num_classes, _convert_="all")
    except (InstantiationException, ValueError, TypeError) as error:
        raise ConfigError(explain(error)) from error


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


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse a dot where a slash belongs: model.box_loss=giou would overwrite the group by a word.

    Raises:
        ConfigError: names the slash form.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        parts = key.lstrip("+~").split(".")
        is_group = len(parts) > 1 and parts[0] == "model" and parts[-1] in MODEL_PARTS
        if not is_group or value.startswith("{") or "@" in key or "/" in key:
            continue
        group = f"model/{parts[-1]}"
        slash = group if len(parts) == 2 else f"{group}@{'.'.join(parts)}"
        raise ConfigError(f"{key}={value} would overwrite a whole group by a word; use {slash}={value}.")


def open_keys(name: str, overrides: Iterable[str]) -> list[str]:
    """Overrides with those keys of `detlab evaluate` made free that change the run's own config.

    Its data and detect nodes are empty, since only the run knows their keys; `evaluate` refuses those that it lacks.
    """
    free = ("data.", "detect.") if name == "evaluate" else ()
    return [f"++{o}" if free and o.startswith(free) else o for o in overrides]


def explain(error: BaseException, name: str = "train") -> str:
    """One sentence from an error of Hydra, OmegaConf or a part, with the nearest valid name where one is near."""
    text = str(error).strip()
    if isinstance(error, InstantiationException):
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__  # a part's own sentence, not what it was made from in turn
        if cause is not error or "unexpected keyword" in text or "takes no arguments" in text:
            return _misplaced(text) or str(cause)
    if m := re.search(r"Could not find '([^']+)'(?:.|\n)*?Available options in '([^']+)':\s*((?:\n\s+\S+)+)", text):
        group, name = m[2], m[1].rsplit("/", 1)[-1]
        options = m[3].split()
        return f"{group}={name} does not exist{_nearest(name, options)}; options: {', '.join(options)}."
    if m := re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", text):
        return _no_group(m[1])
    chain = f"{text}\n{error.__cause__ or ''}"
    if m := re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", chain):
        return _no_group(m[1]) if "/" in m[1] else _no_key(m[1], name)
    return text.splitlines()[0] if text else type(error).__name__


def _misplaced(text: str) -> str:
    """The message for a key that reached a part which has no such option; empty for other errors."""
    target = re.search(r"call to target '([^']+)'", text)
    word = re.search(r"unexpected keyword argument '(\w+)'", text)
    if not target or not (word or "takes no arguments" in text):
        return ""
    what = f"{word[1]!r}" if word else "a key"
    return (
        f"{target[1]} has no option {what}; it was set, by an experiment or on the command line, for the option that "
        f"{target[1].rsplit('.', 1)[-1]} replaces: leave one of the two out."
    )


def _no_group(key: str) -> str:
    """The message for a group that the chosen config does not have."""
    root = config_dir()
    groups = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_dir()]
    if key == "model/pool" or key == "model/proposals":
        return f"{key} is refused: the chosen family pools no RoI, it reads its maps densely; use model=faster_rcnn."
    if key == "model/arm":
        return f"{key} is refused: it refines anchors for a second step; use model=refinedet."
    if key == "model/obj_loss":
        return f"{key} is refused: the chosen family has no objectness apart from its classes; use model=yolo."
    if key in groups:
        return f"{key} is not part of the chosen model; use model=faster_rcnn, or leave it out."
    return f"There is no option {key}{_nearest(key, groups)}."


def _no_key(key: str, config_name: str) -> str:
    """The message for a key that the composed config does not have."""
    parent, _, last = key.rpartition(".")
    known: list[str] = []
    named = [(a, a.partition("=")[0]) for a in sys.argv[1:] if "=" in a and a[0] not in "-+~"]
    choices = [a for a, name in named if "." not in name and name != key and "," not in a]
    try:
        config: Any = OmegaConf.to_container(_compose_quietly(config_name, choices), resolve=False)
        for part in parent.split(".") if parent else []:
            config = config[part]
        known = [str(k) for k in config if k != "_target_"]
    except (HydraException, OmegaConfBaseException, KeyError, TypeError):
        known = []
    listed = f"; keys there: {', '.join(known)}" if known else ""
    return f"There is no option {key}{_nearest(last, known, parent)}{listed}."


def _compose_quietly(name: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def _nearest(name: str, known: Sequence[str], parent: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {parent + '.' if parent else ''}{near[0]}?" if near else ""
