"""The folder of the configs, its groups, and composition without console output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from detlab.errors import ConfigError


def config_dir() -> Path:
    """The conf/ folder: at the top of a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"The configs are not where they belong, {package / 'conf'}; install detlab again.")


@cache
def groups() -> list[str]:
    """All config groups, such as `model/neck`."""
    root = config_dir()
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_dir()]


def choices_among(overrides: Iterable[str]) -> list[str]:
    """The overrides that choose one option of a group."""
    known = set(groups())
    return [o for o in overrides if o.partition("=")[0].partition("@")[0] in known and "," not in o]


def searched(own: Path | None) -> list[str]:
    """The override by which Hydra also looks for options in a folder, where no command line gives --config-dir.

    Raises:
        ConfigError: the folder's name would end the override's own quotes.
    """
    if own is None:
        return []
    if re.search(r"'|\\$", str(own)) or not str(own).isprintable():
        raise ConfigError(f"--config-dir={str(own)!r} has a quote or the like in its name; use another folder.")
    return [f"hydra.searchpath=['file://{own}']"]


def compose_quietly(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose one of the top configs; Hydra's errors pass through."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=False)
