"""Share the GPUs and CPU cores of a machine among jobs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


class GpuSlots:
    """GPUs with room for jobs.

    Args:
        ids: ids in the form of CUDA_VISIBLE_DEVICES.
        jobs_per_gpu: number of jobs that may share a GPU.
    """

    def __init__(self, ids: Sequence[str], jobs_per_gpu: int = 1) -> None:
        self.ids = tuple(ids)
        self._free = dict.fromkeys(self.ids, jobs_per_gpu)

    def take(self, count: int) -> list[str] | None:
        """Take `count` different GPUs (-1: all), the least used first; None if not enough are free."""
        wanted = len(self.ids) if count < 0 else count
        free = sorted((n for n in self.ids if self._free[n]), key=lambda name: -self._free[name])
        if len(free) < wanted:
            return None
        taken = free[:wanted]
        for name in taken:
            self._free[name] -= 1
        return taken

    def give(self, ids: Sequence[str]) -> None:
        """Return GPUs."""
        for name in ids:
            self._free[name] += 1


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, found without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def cores() -> int:
    """Number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def thread_share(jobs_at_once: int, processes: int = 1) -> int:
    """Threads per process if so many jobs, each with so many processes, share the cores of this machine."""
    return max(1, cores() // (jobs_at_once * processes))
