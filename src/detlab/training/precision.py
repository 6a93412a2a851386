"""Numeric precision of a run: choose the format for trainer.precision=auto by the device."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

AMPERE = 8  # the first CUDA generation with bfloat16 units
PAYS = 0.8  # bfloat16 is taken if a convolution takes at most this share of its time in float32


def resolve_precision(precision: str, accelerator: str) -> str:
    """Lightning's name of a precision; auto becomes half precision if the device has hardware for it.

    On a CPU with avx512_bf16 or AMX on which a convolution is faster in bfloat16 it becomes bf16-mixed, on other CPUs
    32-true. On a GPU it becomes bf16-mixed from Ampere on, 16-mixed before. Losses, box decoding and IoU are always
    computed in float32.
    """
    if precision != "auto":
        return precision
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= AMPERE else "16-mixed"
    return "bf16-mixed" if cpu_has_bfloat16() and bfloat16_pays() else "32-true"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU says that it multiplies bfloat16 in hardware; other CPUs emulate it, slowly."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


@cache
def bfloat16_pays() -> bool:
    """Whether bfloat16 is faster here; a virtual machine may name units that it does not let a program use.

    Measured once per process. Whole training steps took .51 to .56 of their time in float32 with units that work, and
    some twenty times as long on a CPU without (docs/performance.md), so other load does not change the answer.
    """
    return conv_seconds(torch.bfloat16) <= PAYS * conv_seconds(torch.float32)


def conv_seconds(dtype: torch.dtype, repeats: int = 5) -> float:
    """Shortest time of a 3x3 convolution of 64 channels over four maps of 32 x 32, forward and backward."""
    x = torch.linspace(-1, 1, 4 * 64 * 32 * 32).view(4, 32, 32, 64).permute(0, 3, 1, 2).to(dtype)  # channels-last
    weight = torch.linspace(-1, 1, 64 * 64 * 9).view(64, 64, 3, 3).to(dtype).requires_grad_()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.enable_grad():
            F.conv2d(x, weight, padding=1).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])
