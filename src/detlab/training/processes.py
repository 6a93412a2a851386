"""The processes (ranks) of one run: agree on a number, and end all ranks when one dies.

Rank 0 watches the ranks that Lightning starts, and they watch rank 0; torchrun and SLURM watch the ranks that they
start themselves. In all cases a collective operation that waits too long ends with an error. When rank 0 fails, it ends
the ranks that it started, so that none is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from detlab.errors import ConfigError
from detlab.ranges import Positive
from detlab.runs.folder import rank
from detlab.system.parent import FIRST_ENV, first_rank, signal_at_parents_death
from detlab.system.text import complain
from detlab.tensors.ranks import set_timeout, together

LOOK_EVERY_S = 0.5  # interval between checks of the other processes
FAREWELL_S = 5.0  # time for a process to end by itself once another rank is dead


def check_alone(world_size: int) -> None:
    """Refuse several processes of torchrun or srun if the trainer would treat each one as a run of its own.

    Args:
        world_size: number of processes that the trainer expects.

    Raises:
        ConfigError: the message names the trainers that join the processes to one run.
    """
    several = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    if world_size == 1 and (several or rank()):
        raise ConfigError(
            f"torchrun or srun started this command as process {rank()} of several, and to the trainer each is a whole "
            f"run; use trainer=ddp, trainer=ddp_cpu or trainer=slurm, or start the command once."
        )


class Agreement:
    """Maximum of one whole number per process, exchanged on the CPU to avoid synchronising with a GPU."""

    def __init__(self) -> None:
        self._group: Any = None  # torch's ProcessGroup, or an int for a process outside the group

    def largest(self, number: int) -> int:
        """The largest number of all processes; every process must call it."""
        if not together():
            return number
        if self._group is None:
            self._group = (
                distributed.group.WORLD
                if distributed.get_backend() == "gloo"
                else distributed.new_group(backend="gloo", timeout=WATCH.patience)
            )
        box = torch.tensor(number)
        distributed.all_reduce(box, distributed.ReduceOp.MAX, group=self._group)
        return int(box)


class Watch:
    """Threads that end this process when another rank is dead; a collective operation would wait for the dead rank.

    There is one instance per process, because several trainers (the stages of a run) share the ranks.
    """

    def __init__(self) -> None:
        self.on_death: Callable[[str], None] = lambda reason: None  # called before this process ends
        self.expected = False  # exits of ranks are no failures: the work is done, or all agreed to stop
        self.patience = timedelta(minutes=30)  # timeout of collective operations; set by the strategy
        self._started = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed: str | None = None  # result of `end_children`; None before the call

    def children(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Watch the ranks that this process has started."""
        if processes and not self._started:
            self._started, self._processes = True, list(processes)
            _stop_lightnings_observer()
            threading.Thread(target=self._children, daemon=True, name="rank-watch").start()

    def parent(self, first: int) -> None:
        """Watch rank 0, which has started this process, by its process id.

        Until now the kernel would kill this rank when rank 0 dies, and no process would be left to write status.json.
        From here on the kernel sends SIGCONT instead, which wakes a stopped rank, and the thread ends this process.
        """
        if not self._started:
            self._started = True
            signal_at_parents_death(signal.SIGCONT)
            threading.Thread(target=self._parent, args=(first,), daemon=True, name="rank-watch").start()

    def dead(self) -> str | None:
        """The first rank started here that ended too early, and how, in words; None if there is none."""
        for number, process in enumerate(self._processes, start=1):
            if process.poll() is not None and not self.expected:
                return f"local rank {number} (process {process.pid}) {_how(process.returncode)}"
        return None

    def end_children(self) -> str:
        """Wait FAREWELL_S for the ranks started here to end, then kill the others; returns which were killed.

        A second call only returns the same text.
        """
        if self._killed is None:
            end = time.monotonic() + FAREWELL_S
            while any(process.poll() is None for process in self._processes) and time.monotonic() < end:
                time.sleep(0.05)
            killed = []
            for number, process in enumerate(self._processes, start=1):
                if process.poll() is None:
                    process.kill()
                    process.wait()
                    killed.append(f"local rank {number} (process {process.pid}) did not end and was killed")
            self._killed = "; ".join(killed)
        return self._killed

    def _children(self) -> None:
        while not self.expected:
            time.sleep(LOOK_EVERY_S)
            if self._killed is None and (reason := self.dead()):
                self._end(reason)

    def _parent(self, first: int) -> None:
        while os.getppid() == first:
            time.sleep(LOOK_EVERY_S)
        if not self.expected:
            self._end(f"rank 0 (process {first}) is gone")
        time.sleep(FAREWELL_S)  # rank 0 has finished before this rank; give this rank time to finish too
        os._exit(1)

    def _end(self, reason: str) -> None:
        self.on_death(reason)
        complain(f"{reason}; a run cannot go on without one of its processes.")
        for process in self._processes:
            process.kill()
        time.sleep(FAREWELL_S)  # an error in the main thread meanwhile closes the loggers
        os._exit(1)


WATCH = Watch()


class DDP(DDPStrategy):
    """Lightning's DDP with time limits on waiting and a watch over the processes.

    Args:
        timeout_s: longest wait of a collective operation for another rank, in seconds.
        start_timeout_s: longest wait at the start until all ranks have read and audited their data, in seconds.
        options: options of Lightning's DDPStrategy and torch's DistributedDataParallel.

    Raises:
        ConfigError: a time limit is not positive.
    """

    def __init__(self, *, timeout_s: Positive = 600.0, start_timeout_s: Positive = 1800.0, **options: Any) -> None:
        for name, value in (("timeout_s", timeout_s), ("start_timeout_s", start_timeout_s)):
            if not value > 0:
                raise ConfigError(f"trainer.strategy.{name}={value} must be a positive number of seconds.")
        super().__init__(timeout=timedelta(seconds=start_timeout_s), **options)
        self.patience = timedelta(seconds=timeout_s)

    def _configure_launcher(self) -> None:
        """Pass this process's id to the ranks that Lightning will start."""
        super()._configure_launcher()
        if self.cluster_environment is not None and not self.cluster_environment.creates_processes_externally:
            os.environ[FIRST_ENV] = str(os.getpid())

    def setup_environment(self) -> None:
        """Start the watch, then the process group with start_timeout_s; timeout_s holds from then on."""
        processes = getattr(self.launcher, "procs", ())
        first = first_rank()
        if processes:
            WATCH.children(processes)
        elif first is not None:
            WATCH.parent(first)
        WATCH.patience = self.patience
        super().setup_environment()
        set_timeout(self.patience)


def process_state(process: int) -> str:
    """State of a process on this machine, in words."""
    try:
        letter = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return "is gone"
    return {"T": "is stopped", "t": "is stopped", "Z": "is gone", "X": "is gone"}.get(letter, "still runs")


def _how(code: int) -> str:
    if code == 0:
        return "ended with exit status 0 in the middle of the run"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"


def _stop_lightnings_observer() -> None:
    """Disable Lightning's observer, which kills this process without a message when a rank dies."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # type: ignore[attr-defined]  # a thread of Lightning's own class
