"""Who may use which GPU, and how many threads: shares of one machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


class GpuSlots:
    """Places for jobs on GPUs.

    Args:
        ids: as CUDA_VISIBLE_DEVICES names them.
        jobs_per_gpu: jobs that may share one.
    """

    def __init__(self, ids: Sequence[str], jobs_per_gpu: int = 1) -> None:
        self.ids = tuple(ids)
        self._free = dict.fromkeys(self.ids, jobs_per_gpu)

    def take(self, count: int) -> list[str] | None:
        """`count` different GPUs (-1: all), the least used first; None where that many are not free."""
        wanted = len(self.ids) if count < 0 else count
        free = sorted((n for n in self.ids if self._free[n]), key=lambda name: -self._free[name])
        if len(free) < wanted:
            return None
        taken = free[:wanted]
        for name in taken:
            self._free[name] -= 1
        return taken

    def give(self, ids: Sequence[str]) -> None:
        """Hand them back."""
        for name in ids:
            self._free[name] += 1


def visible_gpus() -> list[str]:
    """GPUs this process may use, found without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def cores() -> int:
    """CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def thread_share(jobs_at_once: int, processes: int = 1) -> int:
    """Threads of each process where so many jobs, of so many processes each, share this machine's cores."""
    return max(1, cores() // (jobs_at_once * processes))
