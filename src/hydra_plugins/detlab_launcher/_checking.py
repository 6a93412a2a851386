"""Checks of a sweep before its folder is created."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from detlab.sweeps.record import FILE, LOCK, SweepBusyError, hold

OWN_LAUNCHERS = "hydra_plugins.detlab_launcher."


def check_choices(overrides: Sequence[Override], loader: ConfigLoader) -> None:
    """Refuse several ablations at once, and keys without any value.

    Raises:
        HydraException: the message names the key and what would work.
    """
    for override in overrides:
        if not override.is_sweep_override():
            continue
        key = override.get_key_element().lstrip("+")
        if key == "ablation":
            raise HydraException(
                f"{override.input_line} names several sweeps, each with choices of its own; give one, and one command "
                f"to each."
            )
        if not override.is_discrete_sweep() or next(iter(override.sweep_string_iterator()), None) is not None:
            continue
        if isinstance(override.value(), Glob):
            options = ", ".join(loader.get_group_options(key)) or "none"
            raise HydraException(f"{override.input_line} matches no option of {key}; options: {options}.")
        raise HydraException(f"{override.input_line} has no value; a range leaves out its end.")


def check_folder(folder: Path, launcher: DictConfig) -> None:
    """Refuse a folder that another command holds, and a foreign launcher that would overwrite finished detlab jobs.

    Raises:
        HydraException: the message says which.
    """
    if not (folder / FILE).is_file() and any((folder / name).exists() for name in ("status.json", "checkpoints")):
        raise HydraException(f"{folder} holds a run, not a sweep; give another folder, hydra.sweep.dir=FOLDER.")
    own = str(launcher.get("_target_", "")).startswith(OWN_LAUNCHERS)
    if not own and (folder / FILE).is_file():
        raise HydraException(
            f"{folder} holds a sweep of hydra/launcher=processes, whose finished jobs this launcher would overwrite; "
            f"leave hydra/launcher out, or give hydra.sweep.dir another folder."
        )
    if (folder / LOCK).is_file():
        try:
            hold(folder)  # locked before Hydra writes multirun.yaml there
        except SweepBusyError as error:
            raise HydraException(str(error)) from error
