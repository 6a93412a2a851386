"""What configs may ask for in `${detlab.NAME:...}`: a sweep's folder, a share of a number, a pretrained backbone."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from detlab.config.sweep_name import sweep_name
from detlab.errors import ConfigError


def share(key: str, total: int, parts: int) -> int:
    """A whole part of a number, such as the epochs of one stage of four.

    Raises:
        ConfigError: the number has no such part; `key` is the option that gives it.
    """
    if not isinstance(total, int) or total < parts or total % parts:
        near = parts * max(1, round((total or 1) / parts))
        raise ConfigError(f"{key}={total} cannot be shared equally by {parts}; use {key}={near}.")
    return total // parts


def pretrained(cache_dir: str | None, depth: int) -> str | None:
    """The file that `detlab pretrain` left of a ResNet; None where there is none, and weights are random."""
    if cache_dir is None or not depth:
        return None
    file = pretrained_file(cache_dir, depth)
    return str(file) if file.is_file() else None


def pretrained_file(cache_dir: str, depth: int) -> Path:
    """Where `detlab pretrain` leaves a ResNet's weights."""
    return Path(cache_dir).expanduser() / "pretrained" / f"resnet{depth}-shapes.pth"


OmegaConf.register_new_resolver("detlab.sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("detlab.share", share, replace=True)
OmegaConf.register_new_resolver("detlab.pretrained", pretrained, replace=True)
