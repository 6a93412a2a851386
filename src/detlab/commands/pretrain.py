"""detlab pretrain: train a backbone once on generated pictures; budget=cpu starts from its weights.

It trains `experiment=pretrain` in a folder of the cache; an interrupted training continues there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detlab.config.compose import compose_config, plain_config
from detlab.config.resolvers import pretrained_file
from detlab.errors import ConfigError
from detlab.sweeps.process import quoted
from detlab.system.text import complain, write_lines

USAGE = "detlab pretrain [model/backbone=resnet18]"
HELP = (
    f"usage: {USAGE} [KEY=VALUE ...]\n\n"
    "Trains a ResNet once on built-in pictures; budget=cpu starts from it if it is in the cache (data.cache_dir).\n"
    "Takes the overrides of detlab train."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and save the backbone; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(words):
        write_lines([HELP])
        return 0
    try:
        file, command = plan(words)
    except ConfigError as error:
        complain(error)
        return 2
    if file.is_file():
        print(f"weights     {file}, made before; remove it to train again")
        return 0
    status = subprocess.run(command, check=False).returncode
    if status:
        return status
    keep_backbone(run_folder(file), file)
    print(f"weights     {file}, which budget=cpu begins from; data.cache_dir=null leaves it out")
    return 0


def plan(overrides: Sequence[str]) -> tuple[Path, list[str]]:
    """(file of the weights, command that trains them).

    Raises:
        ConfigError: the backbone is no ResNet, there is no cache, or the options are not compatible.
    """
    chosen = ["experiment=pretrain", *overrides]
    config = plain_config(compose_config("train", [*chosen, "paths.run_dir=.", "name=pretrain"]), ["model", "data"])
    depth, cache = config["model"]["backbone"].get("depth"), config["data"]["cache_dir"]
    if not depth:
        raise ConfigError("detlab pretrain makes weights of ResNets; use model/backbone=resnet18.")
    if cache is None:
        raise ConfigError("detlab pretrain keeps its weights in data.cache_dir; leave out data.cache_dir=null.")
    file = pretrained_file(cache, depth)
    folder = run_folder(file)
    more = ["resume=true"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
    command = [sys.executable, "-m", "detlab.commands.train", *chosen, *more, f"hydra.run.dir={quoted(folder)}"]
    return file, command


def run_folder(file: Path) -> Path:
    """Folder of the run that trains a weights file."""
    return file.with_suffix("")


def keep_backbone(folder: Path, file: Path) -> None:
    """Write the backbone of a run's best checkpoint as a state dict with torchvision's names."""
    from detlab.runs.checkpoints import find_checkpoint, read_checkpoint
    from detlab.tensors.archive import save_tensors

    state = read_checkpoint(find_checkpoint(folder)).state
    own = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    save_tensors(file, {name: value for name, value in own.items() if name not in ("mean", "std")})


if __name__ == "__main__":
    sys.exit(main())
