"""Numeric precision of a run: choose the format for trainer.precision=auto by the device."""

from __future__ import annotations

import torch

AMPERE = 8  # the first CUDA generation with bfloat16 units


def resolve_precision(precision: str, accelerator: str) -> str:
    """Lightning's name of a precision; auto becomes half precision if the device has hardware for it.

    On a CPU with avx512_bf16 or AMX it becomes bf16-mixed, on other CPUs 32-true (bfloat16 is emulated there and
    slower than float32). On a GPU it becomes bf16-mixed from Ampere on, 16-mixed before. Losses, box decoding and IoU
    are always computed in float32.
    """
    if precision != "auto":
        return precision
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= AMPERE else "16-mixed"
    return "bf16-mixed" if cpu_has_bfloat16() else "32-true"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
