"""Joint training: one stage for all parts of the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detlab.training.console import report
from detlab.training.fit import best_score, fit


class Joint:
    """Trains all parts of a detector together."""

    def __call__(self, config: dict[str, Any]) -> float | None:
        """Train, test and print the results; returns the monitored metric's best value."""
        run = fit(config)
        report(run, Path(config["paths"]["run_dir"]))
        return best_score(run)
