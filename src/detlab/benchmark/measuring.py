"""Interleaved timing with spread, profiles, and peak memory."""

from __future__ import annotations

import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torchvision
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from detlab.benchmark.options import OptionError

LIMIT = (  # convolutions and matrix products: a lower limit that code around the network cannot reduce
    "aten::convolution_backward",
    "aten::mkldnn_convolution",
    "aten::cudnn_convolution",
    "aten::_slow_conv2d_forward",
    "aten::_slow_conv2d_backward",
    "aten::mkldnn_linear",
    "aten::addmm",
    "aten::mm",
    "aten::bmm",
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Shares(NamedTuple):
    """Profile of one call, as shares of its total time."""

    limit: float  # share of convolutions and matrix products
    top: list[tuple[str, float]]  # (operation, share) of the largest other costs


def set_up(threads: int | None, device: str) -> torch.device:
    """Set the number of threads and choose the device; auto is a GPU if there is one.

    Raises:
        OptionError: a GPU is asked for where there is none.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"device={device} needs a CUDA GPU, and torch sees none here; use device=cpu.")
    return torch.device(device)


def machine(device: torch.device) -> dict[str, Any]:
    """Machine, threads and versions, to be reported with every measurement."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def interleave(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int, warm_up: int, device: torch.device, clock: str = "wall"
) -> dict[str, list[float]]:
    """{side: seconds of each call}; the sides alternate (A B A B), so that other load on the machine affects all.

    Args:
        sides: {name: function to call}.
        repeats: number of measured rounds.
        warm_up: number of rounds before the measured ones.
        clock: "wall", or "cpu" for the CPU time of the process (for one thread on a machine with other load).
    """
    if clock not in CLOCKS:
        raise OptionError(f"clock={clock} is not known; use one of {', '.join(CLOCKS)}.")
    if clock == "cpu" and (torch.get_num_threads() > 1 or device.type != "cpu"):
        raise OptionError("clock=cpu adds up the time of all threads; use threads=1 on a CPU, or clock=wall.")
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + repeats):
        for name, call in sides.items():
            _synchronize(device)
            start = now()
            call()
            _synchronize(device)
            if turn >= warm_up:
                times[name].append(now() - start)
    return times


def shares(call: Callable[[], Any], device: torch.device, rows: int = 8) -> Shares:
    """Profile one call."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as profiled:
        call()
        _synchronize(device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    spent = {e.key: float(getattr(e, key)) for e in profiled.key_averages()}
    if on_gpu:  # keep operations only; the profiler also lists the kernels that they launch
        spent = {k: v for k, v in spent.items() if "::" in k}
    total = sum(spent.values()) or 1.0
    outside = sorted(((k, v / total) for k, v in spent.items() if k not in LIMIT), key=lambda row: -row[1])
    return Shares(sum(spent.get(k, 0.0) for k in LIMIT) / total, outside[:rows])


def synchronisations(call: Callable[[], Any]) -> int:
    """Number of times that a call makes the host wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(w.message) for w in caught)


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Peak memory of a call in bytes, without the memory allocated before it.

    On a CPU it is computed from the events of torch's allocator, so it is the same on every machine. Memory that
    libraries allocate themselves (scratch space of matrix products) is not included.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    blocks: dict[int, int] = {}
    held = peak = 0
    for event in sorted(_allocations(profiled), key=lambda e: e.start_time_ns):
        block = event.extra_fields
        if block.alloc_size > 0:
            blocks[block.ptr] = block.alloc_size
            held += block.alloc_size
        else:
            held -= blocks.pop(block.ptr, 0)  # 0 for memory allocated before the call, such as old gradients
        peak = max(peak, held)
    return peak


def _allocations(profiled: profile) -> Iterator[Any]:
    """All events of the CPU allocator."""
    results: Any = profiled.profiler.kineto_results if profiled.profiler is not None else None
    waiting = [] if results is None else list(results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            yield event


def summarise(times: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum of each side, in milliseconds."""
    return {
        name: {
            "median_ms": 1e3 * statistics.median(values),
            "min_ms": 1e3 * min(values),
            "max_ms": 1e3 * max(values),
        }
        for name, values in times.items()
    }


def ratio(times: Mapping[str, list[float]], ours: str = "ours", theirs: str = "theirs") -> tuple[float, float, float]:
    """Median, minimum and maximum of the ratios ours / theirs within each round."""
    pairs = [a / b for a, b in zip(times[ours], times[theirs], strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def print_times(facts: Mapping[str, Any], summary: Mapping[str, Mapping[str, float]]) -> None:
    """Print the machine and the table of times."""
    print("  ".join(f"{k} {v}" for k, v in facts.items()))
    for name, row in summary.items():
        print(f"{name:14} median {row['median_ms']:9.1f} ms   {row['min_ms']:.1f} to {row['max_ms']:.1f}")


def print_shares(name: str, found: Shares) -> None:
    """Print the share of the limit and the largest other costs."""
    print(f"{name}: convolution and matrix products {found.limit:.1%}; outside them:")
    for operation, share in found.top:
        print(f"    {share:6.1%}  {operation}")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
