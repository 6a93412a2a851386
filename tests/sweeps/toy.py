"""A Hydra application that starts in half a second and does what its config says, to try launchers on."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from detlab.commands.app import run_app
from detlab.errors import ConfigError
from detlab.sweeps import end_with_parent


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent), config_name="toy")
def main(config: DictConfig) -> None:
    folder = Path(config.paths.run_dir)
    wanted = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "RANK", "MASTER_PORT", "DETLAB_SWEEP")
    environment = {k: os.environ[k] for k in wanted if k in os.environ}
    facts = {"pid": os.getpid(), "parent": os.getppid(), "argv": sys.argv[1:], "env": environment}
    (folder / "facts.json").write_text(json.dumps(facts))
    (folder / "status.json").write_text(json.dumps({"epoch": 1, "step": 20, "monitor": "val/map"}))
    (folder / "metrics.csv").write_text(f"epoch,step,val/map\n0,10,0.{config.x}1\n1,20,0.{config.x}2\n")
    (folder / "checkpoints").mkdir(exist_ok=True)
    if config.do == "checkpoint":
        (folder / "checkpoints" / "last.ckpt").touch()
    if config.do in ("sleep", "checkpoint") and not config.resume:
        end = time.monotonic() + 300
        while not Path("go").exists() and time.monotonic() < end:
            time.sleep(0.1)
    first = not Path("flaked").exists()
    Path("flaked").touch()
    if config.do == "mistake":
        raise ConfigError("x=7 does not fit; use x=8")
    if config.do == "raise" or (config.do == "flaky" and first):
        raise RuntimeError(f"broken by x={config.x}")


if __name__ == "__main__":
    end_with_parent()
    run_app(main, "toy")
