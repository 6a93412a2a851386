"""Hydra's callback that claims a command's folder before Hydra writes .hydra/ and the log into it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from detlab.config.compose import plain_config
from detlab.config.explaining import explain
from detlab.errors import ConfigError
from detlab.runs.folder import OF_A_RUN, claim, claim_free, rank
from detlab.system.printing import complain


class RunFolder(Callback):
    """The folder given by hydra.run.dir or refused, else the default name or the next free one.

    Args:
        resumable: whether resume=true goes on with what lies in the folder, or else with the newest such run.
        keep_name: the default name says what lies in the folder, and the command goes on with it.
        holds: what else the command would write over, beside a run.
    """

    def __init__(self, resumable: bool = False, keep_name: bool = False, holds: Sequence[str] = ()) -> None:
        self.resumable, self.keep_name, self.holds = resumable, keep_name, (*OF_A_RUN, *holds)

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Claim the folder and put its name into hydra.run.dir; other ranks write nothing there.

        Raises:
            SystemExit: 2 where it cannot be had. Hydra turns any other error into a warning.
        """
        HydraConfig.instance().set_config(config)  # the names of folders hold choices of groups
        if self.resumable and rank():  # no other command has ranks
            _write_nothing(config)
            return
        try:
            folder = str(self._claim(config))
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.run.dir = folder
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            complain(explain(error))
            sys.exit(2)
        except Exception:  # Hydra would go on, in a folder that may be another's
            traceback.print_exc()
            sys.exit(1)

    def _claim(self, config: DictConfig) -> Path:
        wanted = Path(str(config.hydra.run.dir))
        resume = self.resumable and config.resume is True
        given = any(o.lstrip("+").startswith("hydra.run.dir=") for o in config.hydra.overrides.hydra)
        if resume and not given:
            wanted = _newest(config, wanted.absolute().parents[1])
        elif not given and not self.keep_name:
            return claim_free(wanted)
        elif resume and sys.stdin.isatty() and not any((wanted / name).exists() for name in OF_A_RUN):
            _ask(wanted)  # a script, whose first start says resume=true as well, is not asked
        claim(wanted, resume=resume, holds=self.holds)
        return wanted


def _ask(folder: Path) -> None:
    """Ask whether resume=true shall start a run in a folder that holds none, such as a mistyped one.

    Raises:
        ConfigError: it shall not.
    """
    answer = input(f"{folder} holds no run to go on with. Start one there? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{folder} holds no run; give the folder of one, hydra.run.dir=FOLDER, or leave resume out.")


def _newest(config: DictConfig, root: Path) -> Path:
    """The run of this config to go on with."""
    from detlab.runs.resuming import find_run  # imports torch

    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = "RUN"  # what config_hash puts for a run's folder
    HydraConfig.instance().set_config(config)  # which keeps a copy
    return find_run(plain_config(config, keys=[str(key) for key in config if key != "hydra"]), root)


def _write_nothing(config: DictConfig) -> None:
    """The first process writes .hydra/ and the log; where it is refused, nothing may be written at all."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.output_subdir = None
        logging = config.hydra.job_logging
        if logging is not None and "file" in (logging.get("handlers") or {}):
            del logging.handlers["file"]
            logging.root.handlers = [name for name in logging.root.handlers if name != "file"]
