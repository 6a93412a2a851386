"""How every command with a config starts: a Hydra main whose mistakes end in one sentence."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from detlab.config.compose import open_keys, valid_config
from detlab.config.explaining import explain, one_line
from detlab.config.typed import check_once, check_overrides
from detlab.errors import ConfigError, DataError
from detlab.system.printing import complain

MISTAKES = (HydraException, OmegaConfBaseException, ConfigError, DataError)
FULL = "HYDRA_FULL_ERROR"  # 1: tracebacks, as Hydra has it
OURS = "DETLAB_FULL_ERROR"  # set where FULL is set here and not by the user, also for the processes started from here
Result = TypeVar("Result")


def on_plain_config(name: str) -> Callable[[Callable[[dict[str, Any]], Result]], Callable[[DictConfig], Result]]:
    """Make a function of a plain, valid config a task of `hydra.main`; its mistakes end in one sentence.

    They end here, within Hydra, since Hydra announces an error that leaves a task by a line of its own.
    """

    def decorate(task: Callable[[dict[str, Any]], Result]) -> Callable[[DictConfig], Result]:
        @functools.wraps(task)
        def started(config: DictConfig) -> Result:
            overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
            try:
                return task(valid_config(config, name, overrides))
            except Exception as error:
                end(error, name, overrides)

        return started

    return decorate


def run_app(main: Callable[[], Any], name: str) -> None:
    """Run the Hydra main of a config: one sentence instead of a traceback for errors of the user's making.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    if os.environ.get(FULL) != "1":
        os.environ[FULL] = os.environ[OURS] = "1"  # Hydra then raises instead of printing its own account
    words = [argument for argument in sys.argv[1:] if argument[0] != "-"]
    try:
        typed = [word for word in words if "=" in word]
        check_overrides(typed)
        check_once(typed)
        sys.argv[1:] = open_keys(name, sys.argv[1:])
        main()
    except Exception as error:
        end(error, name, words)


def end(error: Exception, name: str, overrides: list[str]) -> NoReturn:
    """Print an error of the user's making as one sentence and end with exit status 2; others keep their traceback."""
    shown = os.environ.get(FULL) == "1" and OURS not in os.environ
    told = "" if shown else _sentence(error, name, overrides)
    if not told:
        raise error
    complain(told)
    sys.exit(2)


def _sentence(error: Exception, name: str, overrides: list[str]) -> str:
    """What the user can set right; empty for errors that are not of the user's making."""
    if isinstance(error, MISTAKES):
        return explain(error, name, overrides)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which need not be imported for it
        return one_line(error)
    return ""
