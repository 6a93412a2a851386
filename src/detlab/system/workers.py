"""Worker processes that exit when the process that started them is killed, and do not wait for it for ever."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def spawned_workers(count: int) -> ProcessPoolExecutor:
    """A pool of `count` new processes: spawned, since torch's threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_exit_with_parent)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
