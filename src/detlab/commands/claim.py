"""A Hydra callback that locks a command's folder before Hydra writes .hydra/ and the log into it."""

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

from detlab.commands.app import as_typed
from detlab.config.compose import plain_config
from detlab.config.explaining import explain
from detlab.errors import ConfigError
from detlab.runs.folder import OF_A_RUN, claim, claim_free, rank
from detlab.system.text import complain


class RunFolder(Callback):
    """Locks the folder of hydra.run.dir, or refuses the command; without that option, the first free default name.

    Args:
        resumable: resume=true continues the run in the given folder, else the newest unfinished run of the config.
        keep_name: use the default name even if it exists; the command continues the files there.
        holds: files that the command would overwrite, besides those of a run.
    """

    def __init__(self, resumable: bool = False, keep_name: bool = False, holds: Sequence[str] = ()) -> None:
        self.resumable, self.keep_name, self.holds = resumable, keep_name, (*OF_A_RUN, *holds)

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Lock the folder and set hydra.run.dir to it; ranks other than 0 write nothing there.

        Raises:
            SystemExit: status 2 if the folder cannot be used. Hydra turns all other errors into warnings.
        """
        HydraConfig.instance().set_config(config)  # folder names contain group choices, which are resolved from it
        if self.resumable and rank():  # only detlab train, which is resumable, runs on several ranks
            _write_nothing(config)
            return
        try:
            folder = str(self._claim(config))
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.run.dir = folder
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            complain(explain(error))
            sys.exit(2)
        except Exception:  # Hydra would continue, in a folder that another command may hold
            traceback.print_exc()
            sys.exit(1)

    def _claim(self, config: DictConfig) -> Path:
        wanted = Path(str(config.hydra.run.dir))
        resume = self.resumable and config.resume is True
        _check_name(config.get("name"))
        given = any(o.lstrip("+").startswith("hydra.run.dir=") for o in as_typed(config.hydra.overrides.hydra))
        if not given and any(o.lstrip("+").startswith("paths.run_dir=") for o in as_typed(config.hydra.overrides.task)):
            wanted, given = Path(str(config.paths.run_dir)), True
        if resume and not given:
            wanted = _newest(config, wanted.absolute().parents[1])
        elif not given and not self.keep_name:
            return claim_free(wanted)
        elif resume and sys.stdin.isatty() and not any((wanted / name).exists() for name in OF_A_RUN):
            _ask(wanted)  # only on a terminal: scripts pass resume=true at their first start too
        claim(wanted, resume=resume, holds=self.holds)
        return wanted


def _check_name(name: object) -> None:
    """Refuse a name that leads out of the folder of outputs.

    Raises:
        ConfigError: a part of the name is `..`.
    """
    if isinstance(name, str) and ".." in name.split("/"):
        raise ConfigError(f"name={name} leads out of the folder of outputs; give a place by hydra.run.dir=FOLDER.")


def _ask(folder: Path) -> None:
    """Ask whether resume=true shall start a new run in a folder without one; its name may be mistyped.

    Raises:
        ConfigError: the user answered no.
    """
    answer = input(f"{folder} holds no run to go on with. Start one there? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{folder} holds no run; give the folder of one, hydra.run.dir=FOLDER, or leave resume out.")


def _newest(config: DictConfig, root: Path) -> Path:
    """The newest run of this config, see `find_run`."""
    from detlab.runs.resuming import find_run  # imports torch, which takes seconds

    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = "RUN"  # config_hash replaces the run's folder by RUN
    HydraConfig.instance().set_config(config)  # set again, since HydraConfig keeps a copy
    return find_run(plain_config(config, keys=[str(key) for key in config if key != "hydra"]), root)


def _write_nothing(config: DictConfig) -> None:
    """Turn off .hydra/ and the log file: rank 0 writes them, and only if it gets the folder."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.output_subdir = None
        logging = config.hydra.job_logging
        if logging is not None and "file" in (logging.get("handlers") or {}):
            del logging.handlers["file"]
            logging.root.handlers = [name for name in logging.root.handlers if name != "file"]
