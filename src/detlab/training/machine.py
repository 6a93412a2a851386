"""Check GPUs and optional packages before the data is read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from detlab.errors import ConfigError

GPU_NAMES = ("gpu", "cuda")
PACKAGES = (  # (target, module, option that needs it, extra that installs it, option that works without it)
    ("mlflow_logger", "mlflow", "logger=mlflow", "mlflow", "logger=default"),
    ("wandb_logger", "wandb", "logger=wandb", "wandb", "logger=default"),
)


def check_machine(config: Mapping[str, Any]) -> None:
    """Refuse a run that needs a GPU or a package that this machine lacks.

    Raises:
        ConfigError: the message names an option that works here.
    """
    trainer = config["trainer"]
    if trainer.get("accelerator") in GPU_NAMES:
        _check_gpus(trainer)
    elif trainer.get("accelerator") == "cpu" and _names_gpus(devices := trainer.get("devices")):
        raise ConfigError(f"trainer.devices={devices} means GPUs; give a number of processes, trainer.devices=1.")
    targets = {str(node["_target_"]).rsplit(".", 1)[-1] for node in config["logger"].values() if node}
    for target, module, option, package, instead in PACKAGES:
        if target in targets and find_spec(module) is None:
            raise ConfigError(f"{option} needs {module}; pip install '{package}', or use {instead}.")


def _names_gpus(devices: Any) -> bool:
    """Whether `devices` is a list of numbers, or -1 for all, and no count."""
    return devices == -1 or isinstance(devices, list)


def _check_gpus(trainer: Mapping[str, Any]) -> None:
    there, wanted = torch.cuda.device_count(), trainer.get("devices", 1)
    if not there:
        several = trainer.get("strategy") is not None or trainer.get("devices") not in (1, "auto", None)
        hint = "trainer=cpu, or trainer=ddp_cpu for several processes" if several else "trainer=cpu"
        raise ConfigError(f"trainer.accelerator={trainer['accelerator']} finds no GPU on this machine; use {hint}.")
    missing = [n for n in wanted if n >= there] if isinstance(wanted, list) else []
    if missing or (isinstance(wanted, int) and wanted > there):
        raise ConfigError(
            f"trainer.devices={wanted} is more than the {there} GPUs of this machine; use at most {there}."
        )
