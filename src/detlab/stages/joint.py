"""One stage: every part of the detector at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detlab.rules import ConfigError
from detlab.training import best_score, fit, report


class Joint:
    """Trains a detector whole."""

    def __call__(self, config: dict[str, Any]) -> float | None:
        """Train, test and report; the monitored metric's best value.

        Raises:
            ConfigError: nothing to resume.
        """
        run_dir = Path(config["paths"]["run_dir"])
        last = run_dir / "checkpoints" / "last.ckpt"
        if config["resume"] and not last.is_file():
            raise ConfigError(
                f"resume=true found no {last}; give the folder of the run, hydra.run.dir=FOLDER, or leave resume out."
            )
        run = fit(config)
        report(run, run_dir)
        return best_score(run)
