"""Learning-rate schedules by step, each with a linear warm-up, as factors for torch's LambdaLR.

A factor depends on the step and the total number of steps only. A run that is resumed with more epochs therefore
follows the schedule of its new length; torch's chained schedulers would restore the old one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from detlab.ranges import Fraction, Natural, NonNegative, Positive

LONGEST_WARMUP = 0.2  # share of all steps, so that short runs still reach the full rate


def constant(optimizer: Optimizer, total_steps: int, *, warmup_steps: Natural, warmup_factor: Fraction) -> LambdaLR:
    """A constant rate after the warm-up."""
    return _with_warmup(optimizer, total_steps, warmup_steps, warmup_factor, lambda step, warmup: 1.0)


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[Fraction],
    gamma: Positive,
    warmup_steps: Natural,
    warmup_factor: Fraction,
) -> LambdaLR:
    """Multiply the rate by gamma at each milestone, given as a share of all steps."""
    steps = [round(m * total_steps) for m in milestones]
    return _with_warmup(
        optimizer,
        total_steps,
        warmup_steps,
        warmup_factor,
        lambda step, warmup: gamma ** sum(step >= milestone for milestone in steps),
    )


def cosine(
    optimizer: Optimizer, total_steps: int, *, final_factor: NonNegative, warmup_steps: Natural, warmup_factor: Fraction
) -> LambdaLR:
    """Cosine decay from the full rate to final_factor times that rate."""

    def factor(step: int, warmup: int) -> float:
        share = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * share))

    return _with_warmup(optimizer, total_steps, warmup_steps, warmup_factor, factor)


def _with_warmup(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int,
    warmup_factor: float,
    after: Callable[[int, int], float],
) -> LambdaLR:
    """Factor `after(step, warmup)` from step `warmup` on; before, a line from warmup_factor to 1."""
    warmup = min(warmup_steps, int(LONGEST_WARMUP * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return warmup_factor + (1 - warmup_factor) * step / warmup
        return after(step, warmup)

    return LambdaLR(optimizer, factor)
