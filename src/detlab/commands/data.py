"""detlab data: content of a data set before training, by split and class, with the problems found by the audit."""

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
    """Print the content of a data set, and write it as JSON with json=FILE."""
    look(config)


def look(config: Mapping[str, Any]) -> DetectionData:
    """Read and audit a data set; it may lack splits that training needs.

    Raises:
        DataError: the data set cannot be read.
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
    """Write the JSON file.

    Raises:
        ConfigError: the file cannot be written.
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
