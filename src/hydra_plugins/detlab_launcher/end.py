"""The end of a sweep: its table, and an exit status that tells of failed jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Hydra's callback after a sweep, whatever launcher or sweeper ran it."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the summary of sweep.json.

        Raises:
            SystemExit: 1 where a job failed.
        """
        from detlab.files import read_json
        from detlab.sweeps.job import GOOD, Job
        from detlab.sweeps.record import FILE
        from detlab.sweeps.table import print_summary

        folder = Path(str(config.hydra.sweep.dir)).absolute()
        written = read_json(folder / FILE)
        if written is None:  # another launcher's
            return
        jobs = [Job(**{**entry, "folder": Path(entry["folder"])}) for entry in written["jobs"]]
        print_summary(jobs, str(folder), written["seconds"])
        if any(job.state not in GOOD for job in jobs):
            sys.exit(1)
