"""The processes of one run: what they agree on, and how the others end when one dies.

Ranks that Lightning starts are watched by the first one, and watch it in turn; those of torchrun and SLURM are watched
by their launchers. In any case a collective operation that waits too long ends with an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from detlab.tensors.ranks import together

LOOK_EVERY_S = 0.5  # between looks at the other processes
FAREWELL_S = 5.0  # for the main thread to end by itself once another rank is dead


class Agreement:
    """The largest of one whole number per process, exchanged on the CPU, so that no GPU is waited for."""

    def __init__(self) -> None:
        self._group: distributed.ProcessGroup | None = None

    def largest(self, number: int) -> int:
        """The largest number of all processes; every process must call it."""
        if not together():
            return number
        if self._group is None:
            self._group = (
                distributed.group.WORLD
                if distributed.get_backend() == "gloo"
                else distributed.new_group(backend="gloo")
            )
        box = torch.tensor(number)
        distributed.all_reduce(box, distributed.ReduceOp.MAX, group=self._group)
        return int(box)


class Watch:
    """Threads that end this process when another rank is dead, since a collective operation would wait for it.

    One for the whole process, because several trainers (the stages of a run) share the ranks.
    """

    def __init__(self) -> None:
        self.on_death: Callable[[str], None] = lambda reason: None  # told the reason before this process ends
        self.expected = False  # ranks may end now: the work is done, or all agreed to stop
        self._started = False
        self._processes: list[subprocess.Popen] = []

    def children(self, processes: Sequence[subprocess.Popen]) -> None:
        """Watch the ranks that this one has started."""
        if processes and not self._started:
            self._started, self._processes = True, list(processes)
            _stop_lightnings_observer()
            threading.Thread(target=self._children, daemon=True, name="rank-watch").start()

    def parent(self) -> None:
        """Watch the rank that has started this one."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._parent, args=(os.getppid(),), daemon=True, name="rank-watch").start()

    def dead(self) -> str | None:
        """Which of the ranks that this one has started is dead, and how it ended; None for none."""
        for rank, process in enumerate(self._processes, start=1):
            if process.poll() not in (None, 0) and not self.expected:
                return f"local rank {rank} (process {process.pid}) {_how(process.returncode)}"
        return None

    def _children(self) -> None:
        while not self.expected:
            time.sleep(LOOK_EVERY_S)
            if reason := self.dead():
                self._end(reason)

    def _parent(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        time.sleep(FAREWELL_S)  # the first process may just have been done sooner
        if not self.expected:
            self._end(f"rank 0 (process {parent}) is gone")

    def _end(self, reason: str) -> None:
        self.on_death(reason)
        print(f"detlab: {reason}; a run cannot go on without one of its processes.", file=sys.stderr, flush=True)
        for process in self._processes:
            process.kill()
        time.sleep(FAREWELL_S)  # the main thread's own error, if it comes, closes the loggers
        os._exit(1)


WATCH = Watch()


class DDP(DDPStrategy):
    """Lightning's DDP with a bound on waiting and a watch over the processes.

    Args:
        timeout_s: most seconds that a collective operation waits for another rank.
        options: of Lightning's DDPStrategy and torch's DistributedDataParallel.
    """

    def __init__(self, *, timeout_s: float = 600.0, **options: Any) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s), **options)

    def setup_environment(self) -> None:
        """Start the watch, then the process group."""
        processes = getattr(self.launcher, "procs", ())
        if processes:
            WATCH.children(processes)
        elif not self._started_elsewhere() and self.local_rank > 0:
            WATCH.parent()
        super().setup_environment()

    def _started_elsewhere(self) -> bool:
        """Whether torchrun or SLURM has started the processes."""
        return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"


def _stop_lightnings_observer() -> None:
    """Lightning's own observer kills this process without a word when a rank dies; the watch says what happened."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []
