"""OmegaConf resolvers `${detlab.NAME:...}`: name of a sweep, fraction of a number, pretrained backbone."""

from __future__ import annotations

import warnings
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detlab.config.sweep_name import sweep_name
from detlab.errors import ConfigError


def share(key: str, total: int, parts: int) -> int:
    """`total` divided by `parts`, such as the epochs of one of four stages.

    Raises:
        ConfigError: `total` is not divisible; `key` is the option that sets it, for the message.
    """
    if not isinstance(total, int) or total < parts or total % parts:
        near = parts * max(1, round((total or 1) / parts))
        raise ConfigError(f"{key}={total} cannot be shared equally by {parts}; use {key}={near}.")
    return total // parts


def pretrained(cache_dir: str | None, depth: int) -> str | None:
    """The file with a ResNet's weights from `detlab pretrain`; None (random weights) if there is no such file."""
    if cache_dir is None or not depth:
        return None
    file = pretrained_file(cache_dir, depth)
    return str(file) if file.is_file() else None


def missing_pretrained(config: DictConfig) -> Path | None:
    """The file that `${detlab.pretrained:...}` of a job's config looks for in vain; None if it begins as it says."""
    backbone, cache_dir = config.model.backbone, config.data.cache_dir
    written = OmegaConf.to_container(backbone, resolve=False)
    named = str(written.get("weights")) if isinstance(written, dict) else ""
    if "detlab.pretrained:" not in named or not backbone.get("depth") or cache_dir is None or backbone.weights:
        return None
    return pretrained_file(cache_dir, backbone.depth)


def pretrained_file(cache_dir: str, depth: int) -> Path:
    """Where `detlab pretrain` saves a ResNet's weights."""
    return Path(cache_dir).expanduser() / "pretrained" / f"resnet{depth}-shapes.pth"


with warnings.catch_warnings():  # omegaconf 2.4 has another name for it, by which 2.3 means something else
    warnings.simplefilter("ignore")
    OmegaConf.register_new_resolver("detlab.sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("detlab.share", share, replace=True)
    OmegaConf.register_new_resolver("detlab.pretrained", pretrained, replace=True)
