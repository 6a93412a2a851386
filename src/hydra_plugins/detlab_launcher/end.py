"""Start and end of a sweep: lock its folder; print the summary and set the exit status."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from detlab.system.text import complain

if TYPE_CHECKING:
    from detlab.sweeps import SweepRecord


class SweepEnd(Callback):
    """Hydra callback around a sweep; the launchers of this package add their records to it."""

    def __init__(self) -> None:
        self.records: list[SweepRecord] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Lock the sweep's folder before Hydra writes into it.

        Raises:
            SystemExit: status 2 if another command holds it.
        """
        from detlab.sweeps.record import SweepBusyError, forget_unused, hold

        folder = Path(str(config.hydra.sweep.dir)).absolute()
        try:
            hold(folder)
        except SweepBusyError as error:
            complain(error)
            sys.exit(2)
        except OSError as error:
            complain(f"hydra.sweep.dir={folder} cannot be written ({error.strerror}); give another folder.")
            sys.exit(2)
        atexit.register(forget_unused, folder)  # Hydra has no hook for a sweep that ends with an error

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the summary of the sweep.

        Hydra turns errors of a callback into warnings, so the exit status is computed before anything is printed.

        Raises:
            SystemExit: status 1 if a job failed.
        """
        from detlab.sweeps.table import print_summary

        if not self.records:  # the sweep used a foreign launcher
            return
        jobs = [job for record in self.records for job in record.jobs]
        failed = any(record.failed for record in self.records)
        try:
            print_summary(jobs, str(self.records[0].folder), sum(record.seconds for record in self.records))
        finally:
            if failed:
                sys.exit(1)
