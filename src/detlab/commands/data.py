"""detlab data: what a data set holds before training, by split and class, with the dirt that was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.config.parts import build_part
from detlab.data import DetectionData
from detlab.data.contents import contents
from detlab.errors import ConfigError
from detlab.system.files import write_json
from detlab.system.printing import say
from detlab.training.console import say_audit

USAGE = "detlab data data=voc data.root=..."


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="data")
@on_plain_config("data")
def main(config: dict[str, Any]) -> None:
    """Print what the data set holds, and write it as json where asked."""
    look(config)


def look(config: Mapping[str, Any]) -> DetectionData:
    """Read and audit a data set; its splits need not suffice for training.

    Raises:
        DataError: it cannot be read.
        ConfigError: the json file cannot be written.
    """
    data: DetectionData = build_part(config["data"], seed=config["seed"])
    data.required = ()
    data.prepare_data()
    data.setup()
    say_audit(data)
    if config["json"]:
        write_contents(data, str(config["json"]))
    return data


def write_contents(data: DetectionData, file: str) -> None:
    """Write the json file.

    Raises:
        ConfigError: it cannot be written.
    """
    path = Path(file).expanduser()
    try:
        write_json(path, contents(data), compact=True)
    except OSError as error:
        raise ConfigError(
            f"json={file} cannot be written ({error.strerror}); give a file in a folder of yours."
        ) from error
    say(f"json        {path}")


if __name__ == "__main__":
    run_app(main, "data")
