"""A sweep's start, at which it claims its folder, and its end: a table, and an exit status that tells of failures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Hydra's callback around a sweep, whatever launcher or sweeper runs it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Take the sweep's folder before Hydra writes into it.

        Raises:
            SystemExit: 2 where another command has it.
        """
        from detlab.sweeps.record import SweepBusyError, hold

        try:
            hold(Path(str(config.hydra.sweep.dir)).absolute())
        except SweepBusyError as error:
            print(f"detlab: {error}", file=sys.stderr)
            sys.exit(2)

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
