"""A sweep's start, at which it claims its folder, and its end: a table, and an exit status that tells of failures."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from detlab.system.printing import complain

if TYPE_CHECKING:
    from detlab.sweeps import SweepRecord


class SweepEnd(Callback):
    """Hydra's callback around a sweep; the launchers of this package hand it their records."""

    def __init__(self) -> None:
        self.records: list[SweepRecord] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Take the sweep's folder before Hydra writes into it.

        Raises:
            SystemExit: 2 where another command has it.
        """
        from detlab.sweeps.record import SweepBusyError, forget_unused, hold

        folder = Path(str(config.hydra.sweep.dir)).absolute()
        try:
            hold(folder)
        except SweepBusyError as error:
            complain(error)
            sys.exit(2)
        atexit.register(forget_unused, folder)  # Hydra has no hook for a sweep that a mistake ends

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the summary of what ran.

        Hydra turns errors of a callback into warnings, so the status is decided before anything is printed.

        Raises:
            SystemExit: 1 where a job failed.
        """
        from detlab.sweeps.table import print_summary

        if not self.records:  # another launcher's
            return
        jobs = [job for record in self.records for job in record.jobs]
        failed = any(record.failed for record in self.records)
        try:
            print_summary(jobs, str(self.records[0].folder), sum(record.seconds for record in self.records))
        finally:
            if failed:
                sys.exit(1)
