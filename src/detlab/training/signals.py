"""Signals that ask a run to end: SIGINT (Ctrl-C), SIGTERM (kill, torchrun, a cluster) and SIGUSR1 (SLURM's warning)."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from detlab.system.printing import complain

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """A run that was asked to end, and did so at a place from which it can go on.

    Attributes:
        signal: the number that asked; the process ends with exit status 128 + signal, as a shell would report it.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"asked to stop by {signal.Signals(number).name}")


class StopSignals:
    """What a signal does: while training it is remembered until the run can be saved, otherwise it ends the work.

    Attributes:
        received: the signal that waits to be obeyed; 0 for none.
        deferred: whether someone will look at `received` (`RunCheckpoint` does).
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals over, also from Lightning: its handler runs a collective operation inside the handler, which
        may meet another one of the interrupted main thread."""
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
        """Give the signals back."""
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


STOP = StopSignals()  # one for the whole process, as signals are
