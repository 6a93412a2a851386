"""Learning-rate schedules by step, each with a linear warm-up.

A factor depends on the step, the total number of steps and, where training has a time limit, on the share of it that
has passed. A run that is resumed with more epochs or time therefore follows the schedule of its new length; torch's
chained schedulers would restore the old one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from detlab.ranges import Fraction, Natural, NonNegative, Positive

LONGEST_WARMUP = 0.2  # share of training, so that short runs still reach the full rate


class Schedule(LambdaLR):
    """A factor of the learning rate by the place in training: `max(step, time_share * total_steps)`.

    Args:
        factor: called as factor(step, place); both are the same without a time limit.
        total_steps: length of training in optimiser steps.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int, float], float], total_steps: int) -> None:
        self.time_share = 0.0  # 0..1, of the time limit; whoever knows it sets it before each step
        super().__init__(optimizer, lambda step: factor(step, max(step, self.time_share * total_steps)))


def constant(optimizer: Optimizer, total_steps: int, *, warmup_steps: Natural, warmup_factor: Fraction) -> Schedule:
    """A constant rate after the warm-up."""
    return _with_warmup(optimizer, total_steps, warmup_steps, warmup_factor, lambda place, warmup: 1.0)


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[Fraction],
    gamma: Positive,
    warmup_steps: Natural,
    warmup_factor: Fraction,
) -> Schedule:
    """Multiply the rate by gamma at each milestone, given as a share of training."""
    steps = [round(m * total_steps) for m in milestones]
    return _with_warmup(
        optimizer,
        total_steps,
        warmup_steps,
        warmup_factor,
        lambda place, warmup: gamma ** sum(place >= milestone for milestone in steps),
    )


def cosine(
    optimizer: Optimizer, total_steps: int, *, final_factor: NonNegative, warmup_steps: Natural, warmup_factor: Fraction
) -> Schedule:
    """Cosine decay from the full rate to final_factor times that rate."""

    def factor(place: float, warmup: int) -> float:
        share = min(1.0, max(0.0, place - warmup) / max(1, total_steps - warmup))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * share))

    return _with_warmup(optimizer, total_steps, warmup_steps, warmup_factor, factor)


def _with_warmup(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int,
    warmup_factor: float,
    after: Callable[[float, int], float],
) -> Schedule:
    """Factor `after(place, warmup)` from step `warmup` on; before, a line from warmup_factor to 1.

    Where time is shorter than the steps, the line ends at a fifth of the time, and is cut where `after` lies below it.
    """
    warmup = min(warmup_steps, int(LONGEST_WARMUP * total_steps))

    def factor(step: int, place: float) -> float:
        if step >= warmup:
            return after(place, warmup)
        if place == step:
            return warmup_factor + (1 - warmup_factor) * step / warmup
        risen = min(1.0, max(step / warmup, place / (LONGEST_WARMUP * total_steps)))
        return min(warmup_factor + (1 - warmup_factor) * risen, after(place, warmup))

    return Schedule(optimizer, factor, total_steps)
