"""Learning-rate schedules by step, each with a linear warm-up; torch's own, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

LONGEST_WARMUP = 0.2  # share of all steps, so that short runs still reach their rate


def constant(optimizer: Optimizer, total_steps: int, *, warmup_steps: int, warmup_factor: float) -> LRScheduler:
    """One rate."""
    return _with_warmup(optimizer, total_steps, warmup_steps, warmup_factor, lambda _: ConstantLR(optimizer, 1.0, 1))


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float],
    gamma: float,
    warmup_steps: int,
    warmup_factor: float,
) -> LRScheduler:
    """Times gamma at each milestone, a share of all steps."""
    warmup = _warmup(total_steps, warmup_steps)
    steps = [max(1, round(m * total_steps) - warmup) for m in milestones]
    return _with_warmup(
        optimizer, total_steps, warmup_steps, warmup_factor, lambda _: MultiStepLR(optimizer, steps, gamma)
    )


def cosine(
    optimizer: Optimizer, total_steps: int, *, final_factor: float, warmup_steps: int, warmup_factor: float
) -> LRScheduler:
    """Half a cosine from the full rate to final_factor of it."""
    lowest = min(group["lr"] for group in optimizer.param_groups) * final_factor
    return _with_warmup(
        optimizer,
        total_steps,
        warmup_steps,
        warmup_factor,
        lambda left: CosineAnnealingLR(optimizer, max(1, left), eta_min=lowest),
    )


def _warmup(total_steps: int, warmup_steps: int) -> int:
    return min(warmup_steps, int(LONGEST_WARMUP * total_steps))


def _with_warmup(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int,
    warmup_factor: float,
    make: Callable[[int], LRScheduler],
) -> LRScheduler:
    warmup = _warmup(total_steps, warmup_steps)
    rest = make(total_steps - warmup)
    if warmup == 0:
        return rest
    first = LinearLR(optimizer, start_factor=warmup_factor, total_iters=warmup)
    return SequentialLR(optimizer, [first, rest], milestones=[warmup])
