"""Signals that ask a run to end: SIGINT (Ctrl-C), SIGTERM (kill, torchrun, a cluster) and SIGUSR1 (SLURM's warning)."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from detlab.system.text import complain

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal ended the run, at a point from which it can be resumed.

    Attributes:
        signal: number of the signal; the process ends with exit status 128 + signal, as shells report it.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"asked to stop by {signal.Signals(number).name}")


class StopSignals:
    """Signal handlers: in training a signal is remembered until the run is saved; otherwise it ends the work at once.

    Attributes:
        received: number of the remembered signal; 0 for none.
        deferred: whether signals are remembered, because `RunCheckpoint` will read `received`.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Install the handlers, also over Lightning's: those run a collective operation, which may collide with one
        that the main thread was running when the signal came."""
        if threading.current_thread() is not threading.main_thread():
            return
        if not self._before:
            self.received = 0
        for number in SIGNALS:
            current = signal.getsignal(number)
            if current != self._receive:
                self._before.setdefault(number, current)
                signal.signal(number, self._receive)

    def remove(self) -> None:
        """Restore the earlier handlers."""
        self.deferred = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received or not self.deferred:
            raise Stopped(number)
        self.received = number
        name = signal.Signals(number).name
        complain(f"{name}: saving after this step or evaluation; once more to leave now.")


STOP = StopSignals()  # one instance, since signals belong to the whole process
