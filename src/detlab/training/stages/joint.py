"""One stage: every part of the detector at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detlab.training.console import report
from detlab.training.fit import best_score, fit


class Joint:
    """Trains a detector whole."""

    def __call__(self, config: dict[str, Any]) -> float | None:
        """Train, test and report; the monitored metric's best value."""
        run = fit(config)
        report(run, Path(config["paths"]["run_dir"]))
        return best_score(run)
