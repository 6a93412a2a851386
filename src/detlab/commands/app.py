"""Start of every command with a config: a Hydra main that reports the user's mistakes in one sentence."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detlab.commands.helping import help_lines
from detlab.config.compose import open_keys, valid_config
from detlab.config.explaining import explain, one_line
from detlab.config.trusted import trusted_packages
from detlab.config.typed import check_once, check_overrides
from detlab.errors import ConfigError, DataError
from detlab.runs.folder import remove_unused
from detlab.system.memory import ran_out
from detlab.system.text import complain, write_lines

MISTAKES = (HydraException, OmegaConfBaseException, ConfigError, DataError)
FULL = "HYDRA_FULL_ERROR"  # Hydra's variable; 1: show tracebacks
SET_HERE = "DETLAB_FULL_ERROR"  # marks that FULL was set here, not by the user; child processes inherit it
SIZES = {  # options by which a command needs less memory
    "predict": ("batch_size",),
    "export": ("batch", "canvas"),
    "proposals": ("batch_size", "workers"),
    "evaluate": ("data.eval_batch_size", "data.size", "data.canvas", "data.num_workers"),
}
SIZES_OF_TRAINING = ("data.batch_size", "data.eval_batch_size", "data.size", "data.canvas", "data.num_workers")
Result = TypeVar("Result")


def on_plain_config(name: str) -> Callable[[Callable[[dict[str, Any]], Result]], Callable[[DictConfig], Result]]:
    """Turn a function of a plain, valid config into a task function for `hydra.main`.

    The user's mistakes are reported here, inside the task: Hydra would print a line of its own for an error that
    leaves the task.
    """

    def decorate(task: Callable[[dict[str, Any]], Result]) -> Callable[[DictConfig], Result]:
        @functools.wraps(task)
        def started(config: DictConfig) -> Result:
            overrides = as_typed(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
            try:
                plain = valid_config(config, name, overrides)
                trusted_packages(plain.get("trust") or ())
                return task(plain)
            except Exception as error:
                end(error, name, overrides)

        return started

    return decorate


def as_typed(overrides: Any) -> list[str]:
    """A list of Hydra's overrides; to OmegaConf, one such as seed=${foo} is text to be resolved."""
    texts: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(text) for text in texts]


def run_app(main: Callable[[], Any], name: str) -> None:
    """Run the Hydra main of a config; a mistake of the user is reported in one sentence.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    if os.environ.get(FULL) != "1":
        os.environ[FULL] = os.environ[SET_HERE] = "1"  # makes Hydra raise errors instead of printing them
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        write_lines(help_lines(name))
        return
    words = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    try:
        _check_flags(name)
        typed = [word for word in words if "=" in word]
        check_overrides(typed, name)
        check_once(typed)
        sys.argv[1:] = open_keys(name, sys.argv[1:])
        main()
    except Exception as error:
        end(error, name, words)


def _check_flags(command: str) -> None:
    """Refuse flags that Hydra does not have; it would print its usage in six lines.

    Raises:
        ConfigError: the message is argparse's.
    """
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            get_args_parser().parse_args()
        except SystemExit as stop:
            if not stop.code:  # --version
                raise
            reason = told.getvalue().rpartition("error: ")[2].strip()
            raise ConfigError(f"{reason}; detlab {command} --help lists the flags.") from None


def end(error: Exception, name: str, overrides: list[str]) -> NoReturn:
    """Print a mistake of the user as one sentence and exit with status 2; raise other errors again.

    A folder that this command created, and in which nothing was written yet, is removed.
    """
    shown = os.environ.get(FULL) == "1" and SET_HERE not in os.environ
    told = "" if shown else _sentence(error, name, overrides)
    if not told:
        raise error
    complain(told)
    remove_unused()
    sys.exit(2)


def _sentence(error: Exception, name: str, overrides: list[str]) -> str:
    """The sentence for a mistake of the user; empty for other errors."""
    if isinstance(error, MISTAKES):
        return explain(error, name, overrides)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if lacking := ran_out(error):
        return _too_large(lacking, name, overrides)
    if type(error).__name__ == "MisconfigurationException":  # compared by name to avoid importing Lightning
        return one_line(error)
    return ""


def _too_large(lacking: str, name: str, overrides: list[str]) -> str:
    """The sentence for memory that ran out, with the sizes that the command line sets."""
    sizes = SIZES.get(name, SIZES_OF_TRAINING)
    typed = [word for word in overrides if word.lstrip("+").partition("=")[0] in sizes]
    given = f", with {' '.join(typed)}" if typed else ""
    return f"{lacking[0].upper()}{lacking[1:]}{given}; use a smaller {' or '.join(sizes)}."
