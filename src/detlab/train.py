"""detlab train: `python -m detlab.train KEY=VALUE ...`, also what Lightning starts for the other ranks."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from detlab.composing import config_dir, plain_config, run_app
from detlab.sweeps import end_with_parent


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
def main(config: DictConfig) -> float | None:
    """Train; the value is what a sweeper sees."""
    from detlab.training import train  # torch: neither --help nor the process that starts a sweep's jobs needs it

    return train(plain_config(config))


if __name__ == "__main__":
    end_with_parent()
    run_app(main, "train")
