"""Options of a resumed run's optimiser: those of its config hold, those that a schedule moves stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR, SequentialLR

from detlab.training.restored import groups_of, take_over


def stepped(optimizer: Optimizer, scheduler: Any, steps: int = 3) -> None:
    for _ in range(steps):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.ones_like(weight)
        optimizer.step()
        scheduler.step()


def test_what_a_one_cycle_moves_is_no_changed_option() -> None:
    def made() -> tuple[Optimizer, OneCycleLR]:
        optimizer = AdamW(nn.Linear(2, 2).parameters(), lr=0.01)
        return optimizer, OneCycleLR(optimizer, max_lr=0.1, total_steps=10)

    before, moving = made()
    stepped(before, moving)
    after, scheduler = made()
    built = groups_of(after)
    after.load_state_dict(before.state_dict())
    scheduler.load_state_dict(moving.state_dict())
    assert after.param_groups[0]["betas"] != built[0]["betas"]
    assert take_over(after, scheduler, built) == []
    assert after.param_groups[0]["betas"] == before.param_groups[0]["betas"]


def test_another_rate_under_a_schedule_without_base_rates() -> None:
    def made(rate: float) -> tuple[Optimizer, SequentialLR]:
        optimizer = SGD(nn.Linear(2, 2).parameters(), lr=rate)
        parts = [ConstantLR(optimizer, 0.5, 2), ConstantLR(optimizer, 1.0, 2)]
        return optimizer, SequentialLR(optimizer, parts, [5])

    before, _ = made(0.1)
    after, scheduler = made(0.2)
    built = groups_of(after)
    after.load_state_dict(before.state_dict())
    assert take_over(after, scheduler, built) == ["learning rate 0.2 (before: 0.1)"]
    assert after.param_groups[0]["initial_lr"] == 0.2


@pytest.mark.parametrize("fused", [True, False])
def test_fused_kernels_find_their_step_counts_on_the_weights_device(fused: bool) -> None:
    """A GPU's fused step reads them there; a 16-mixed run kept them on the CPU. The meta device stands for a GPU."""
    optimizer = AdamW(nn.Linear(2, 2, device="meta").parameters(), lr=0.01)
    for weight in optimizer.param_groups[0]["params"]:
        optimizer.state[weight] = {"step": torch.tensor(3.0)}
    optimizer.param_groups[0]["fused"] = not fused
    own = groups_of(optimizer)
    own[0]["fused"] = fused
    assert take_over(optimizer, None, own) == []
    devices = {state["step"].device.type for state in optimizer.state.values()}
    assert devices == {"meta" if fused else "cpu"}
