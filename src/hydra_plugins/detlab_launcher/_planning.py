"""Plan the jobs of a sweep from their overrides: compose, check the rules, compute config hash and needed devices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, open_dict

from detlab.config.compose import config_hash, plain_config
from detlab.config.keys import TOP
from detlab.config.rules import check
from detlab.config.validate import validate
from detlab.errors import ConfigError
from detlab.sweeps import Job, SweepRecord
from detlab.sweeps.slots import visible_gpus

LAUNCHING = (
    "hydra.mode",
    "hydra.run.",
    "hydra.sweep.",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.sweeper",
    "hydra/sweeper",
)


class Sweep(NamedTuple):
    """Facts shared by all jobs of a sweep."""

    config: DictConfig
    loader: ConfigLoader
    record: SweepRecord

    @property
    def folder(self) -> Path:
        """Folder of the sweep."""
        return self.record.folder

    def job(self, overrides: Sequence[str], choices: Mapping[str, str]) -> Job:
        """The job with these overrides, in its state from an earlier command, if any."""
        plain = self._compose(overrides)
        key = config_hash(plain)
        number, earlier = self.record.place(key)
        trainer = plain.get("trainer") or {}
        gpus, processes = needs(trainer)
        job = Job(
            number=number,
            folder=self.folder / str(number),
            overrides=list(overrides),
            choices=dict(choices),
            hash=key,
            epochs=trainer.get("max_epochs"),
            gpus=gpus,
            processes=processes,
        )
        self.record.add(job, earlier)
        try:
            if self.config.hydra.job.config_name in TOP:
                validate(plain)
            check(plain)
        except ConfigError as error:
            job.state, job.reason = "refused", str(error)
        return job

    def _compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The job's config as the job itself will compose it, except for the path of its folder."""
        setup_globals()
        config = self.loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = 0
            config.hydra.runtime.output_dir = "RUN"  # config_hash replaces the run's folder by RUN
        HydraConfig.instance().set_config(config)
        return plain_config(config, keys=[str(key) for key in config if key != "hydra"])

    def flags(self) -> list[str]:
        """Flags and Hydra overrides of the command line that each job repeats."""
        sources = self.config.hydra.runtime.config_sources
        folders = [s.path for s in sources if s.provider == "command-line"]
        flags = [part for path in folders for part in ("--config-dir", os.path.abspath(path))]
        name = self.config.hydra.job.config_name
        if name and name != "train":
            flags += ["--config-name", name]
        return flags + [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+~").startswith(LAUNCHING)]


def needs(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """(GPUs, -1 for all; DDP processes on this machine) that a trainer config needs."""
    accelerator, devices = str(trainer.get("accelerator", "cpu")), trainer.get("devices", 1)
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and bool(visible_gpus()))
    known = str(devices).lstrip("-").isdigit()
    count = len(devices) if isinstance(devices, list) else int(devices) if known else -1  # -1: auto
    if on_gpu:
        return count, max(1, count)
    return 0, max(1, count) if accelerator == "cpu" else 1
