"""`hydra/sweeper=grid`, the default: Hydra's product of choices, with every job composed before a folder is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, but a mistake leaves nothing behind; see conf/hydra/sweeper/grid.yaml.

    Args:
        max_batch_size: jobs handed to the launcher at once; None: all.
        params: choices, where they are not on the command line.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Check all jobs, then run them.

        Raises:
            HydraException: a key or option that does not exist, a choice of nothing, a folder of another launcher.
        """
        from hydra_plugins.detlab_launcher._checking import check_choices, check_folder

        assert self.hydra_context is not None  # Hydra has called setup
        assert self.config is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        check_choices(overrides, loader)
        for batch in self.split_arguments(overrides, None):
            super().validate_batch_is_legal(batch)
        check_folder(Path(str(self.config.hydra.sweep.dir)).absolute(), self.config.hydra.launcher)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done for all jobs together, before the folder was made."""
