"""A Hydra callback that locks a command's folder before Hydra writes .hydra/ and the log into it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from detlab.commands.app import as_typed
from detlab.config.compose import plain_config
from detlab.config.explaining import explain
from detlab.errors import ConfigError
from detlab.runs.folder import OF_A_RUN, claim, claim_free, rank
from detlab.system.text import complain

DEFAULT = "${hydra:runtime.output_dir}"  # paths.run_dir in conf/


class RunFolder(Callback):
    """Locks the folder of hydra.run.dir or paths.run_dir, or refuses the command; without them, a free default name.

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
        try:
            own = _own_folder(config)
            if self.resumable and rank():  # only detlab train, which is resumable, runs on several ranks
                _write_nothing(config)
                if own is not None:  # Hydra makes its folder in every rank
                    with read_write(config.hydra), open_dict(config.hydra):
                        config.hydra.run.dir = str(own)
                return
            folder = str(self._claim(config, own))
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.run.dir = folder
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            complain(explain(error))
            sys.exit(2)
        except Exception:  # Hydra would continue, in a folder that another command may hold
            traceback.print_exc()
            sys.exit(1)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Refuse a sweep whose jobs would write into another folder than the sweep's.

        Raises:
            SystemExit: status 2.
        """
        if _sets_folder(config):
            complain("paths.run_dir=FOLDER is the folder of one run; give that of a sweep, hydra.sweep.dir=FOLDER.")
            sys.exit(2)

    def _claim(self, config: DictConfig, own: Path | None) -> Path:
        wanted = _folder(str(config.hydra.run.dir), "hydra.run.dir")
        resume = self.resumable and config.resume is True
        _check_name(config.get("name"))
        given = any(o.lstrip("+").startswith("hydra.run.dir=") for o in as_typed(config.hydra.overrides.hydra))
        if given and own is not None and own.resolve() != wanted.resolve():
            raise ConfigError(
                f"hydra.run.dir={wanted} and paths.run_dir={own} are two folders for one run; give one of the "
                f"two alone."
            )
        if not given and own is not None:
            wanted, given = own, True
        if resume and not given:
            wanted = _newest(config, wanted.absolute().parents[1])
        elif not given and not self.keep_name:
            return claim_free(wanted)
        elif resume and _on_terminal() and not any((wanted / name).exists() for name in OF_A_RUN):
            _ask(wanted)  # not in scripts, which pass resume=true at their first start too
        claim(wanted, resume=resume, holds=self.holds)
        return wanted


def _sets_folder(config: DictConfig) -> bool:
    """Whether anything but the default sets paths.run_dir: an override, or an option of the user's own."""
    paths: Any = config.get("paths")
    raw = OmegaConf.to_container(paths, resolve=False) if isinstance(paths, DictConfig) else None
    found = raw.get("run_dir") if isinstance(raw, dict) else None
    return isinstance(found, str) and found != DEFAULT


def _own_folder(config: DictConfig) -> Path | None:
    """The folder that paths.run_dir gives, which is made absolute in the config; None by default.

    Raises:
        ConfigError: it is empty.
    """
    if not _sets_folder(config):
        return None
    folder = _folder(str(config.paths.run_dir), "paths.run_dir").absolute()
    with read_write(config.paths):
        config.paths.run_dir = str(folder)
    return folder


def _folder(text: str, option: str) -> Path:
    """A folder as given, with ~ as the user's own; an empty text, as of an unset variable of the shell, is none.

    Raises:
        ConfigError: the text is empty.
    """
    if not text.strip():
        raise ConfigError(f"{option}= names no folder; give one, {option}=FOLDER, or leave it out.")
    return Path(text).expanduser()


def _check_name(name: object) -> None:
    """Refuse a name that leads out of the folder of outputs.

    Raises:
        ConfigError: a part of the name is `..`.
    """
    if isinstance(name, str) and ".." in name.split("/"):
        raise ConfigError(f"name={name} leads out of the folder of outputs; give a place by hydra.run.dir=FOLDER.")


def _on_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # None where it was closed


def _ask(folder: Path) -> None:
    """Ask whether resume=true shall start a new run in a folder without one; its name may be mistyped.

    Raises:
        ConfigError: the user answered no.
    """
    try:
        answer = input(f"{folder} holds no run to go on with. Start one there? [y/N] ")
    except EOFError:  # Ctrl-D
        answer = ""
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
