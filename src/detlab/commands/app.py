"""How every command with a config starts: a Hydra main whose mistakes end in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from detlab.config.compose import check_overrides, explain, open_keys
from detlab.errors import ConfigError, DataError


def run_app(main: Callable[[], Any], name: str) -> None:
    """Run the Hydra main of a config: one sentence instead of a traceback for errors of the user's making.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own account
    try:
        check_overrides([argument for argument in sys.argv[1:] if "=" in argument and argument[0] != "-"])
        sys.argv[1:] = open_keys(name, sys.argv[1:])
        main()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        mistakes = (HydraException, OmegaConfBaseException, ConfigError, DataError)
        if wanted or not isinstance(error, mistakes):
            raise
        print(f"detlab: {explain(error, name)}", file=sys.stderr)
        sys.exit(2)
