"""`hydra/sweeper=grid`, the default: all combinations of choices; every job is composed before a folder is created."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


class GridSweeper(BasicSweeper):
    """Hydra's BasicSweeper, but a mistake leaves no files; see conf/hydra/sweeper/grid.yaml.

    Args:
        max_batch_size: jobs passed to the launcher at once; None: all.
        params: {key: choices}, for keys that are not on the command line.
        jobs: JSON file with a list of jobs, each a list of overrides added to those of the command line. It replaces
            the product of all choices (`detlab ablate` adds seeds to some rows only).
    """

    def __init__(self, *, max_batch_size: int | None, params: dict[str, str] | None, jobs: str | None = None) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        if max_batch_size is not None and max_batch_size < 1:
            raise HydraException(f"hydra.sweeper.max_batch_size={max_batch_size} must be at least 1, or null: all.")
        self.jobs = None if jobs is None else _read_jobs(Path(jobs))

    def sweep(self, arguments: list[str]) -> Any:
        """Check all jobs, then run them.

        Raises:
            HydraException: a key or option does not exist, a key has no value, or the folder is of another launcher.
        """
        from hydra_plugins.detlab_launcher._checking import check_choices, check_folder

        assert self.hydra_context is not None  # Hydra has called setup
        assert self.config is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        check_choices(overrides, loader)
        for override in overrides:
            if override.is_interval_sweep():
                raise HydraException(
                    f"{override.input_line} is an interval, which only a search draws from; add "
                    f"hydra/sweeper=optuna, or list values."
                )
        for batch in self._batches(overrides, None):
            super().validate_batch_is_legal(batch)
        check_folder(Path(str(self.config.hydra.sweep.dir)).absolute(), self.config.hydra.launcher)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing to do: all jobs were checked before the folder was created."""

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override] # static in Hydra
        """Batches of jobs, each a list of overrides."""
        return self._batches(overrides, max_batch_size)

    def _batches(self, overrides: list[Override], size: int | None) -> list[list[list[str]]]:
        if self.jobs is None:
            return BasicSweeper.split_arguments(overrides, size)
        shared = {o.get_key_element(): o.get_value_element_as_str() for o in overrides if not o.is_sweep_override()}
        jobs = []
        for own in self.jobs:
            named = {text.partition("=")[0] for text in own}
            jobs.append([*own, *(f"{key}={value}" for key, value in shared.items() if key not in named)])
        return [jobs] if size is None else list(BasicSweeper.split_overrides_to_chunks(jobs, size))


def _read_jobs(path: Path) -> list[list[str]]:
    """Read a list of lists of overrides.

    Raises:
        HydraException: the file holds something else.
    """
    from detlab.system.files import read_json

    found = read_json(path)
    if not isinstance(found, list) or not found or not all(_is_job(job) for job in found):
        raise HydraException(
            f"hydra.sweeper.jobs={path} must be a JSON file with a list of jobs, each a list of overrides; "
            f"leave it out to run every combination of choices."
        )
    return found


def _is_job(job: Any) -> bool:
    return isinstance(job, list) and bool(job) and all(isinstance(text, str) and "=" in text for text in job)
