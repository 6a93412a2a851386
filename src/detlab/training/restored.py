"""What a resumed run does with a restored optimiser: its state must fit, and the options given now hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detlab.errors import ConfigError

Group = dict[str, Any]  # a parameter group without its parameters
OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
LIKE_WEIGHTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # states of their weights' shape


def groups_of(optimizer: Optimizer) -> list[Group]:
    """The options of an optimiser's parameter groups, as they are before anything is restored."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def check_fits(optimizer: Optimizer, built: Sequence[Group]) -> None:
    """Refuse the state of another optimiser, whose fused kernels would read beyond tensors of other shapes.

    Args:
        optimizer: with the restored state.
        built: its groups as this run's config built them.

    Raises:
        ConfigError: options or states are those of another optimiser.
    """
    other = {key for group, own in zip(optimizer.param_groups, built, strict=True) for key in own.keys() ^ group.keys()}
    if other - {"params"}:
        raise ConfigError(
            f"resume=true goes on with the optimiser of before, which has other options than {type(optimizer).__name__}"
            f" ({', '.join(sorted(map(str, other - {'params'})))}); give the optim= of before, or start another run "
            f"with init_from=."
        )
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state.get(weight)
            if state is not None and not _fits(optimizer, state, weight):
                raise ConfigError(
                    "resume=true found a state of the optimiser that does not fit its weights; take another "
                    "checkpoint, or start another run with init_from=."
                )


def _fits(optimizer: Optimizer, state: Any, weight: Tensor) -> bool:
    if not isinstance(optimizer, SGD | Adam):  # AdamW is an Adam; what others keep is theirs to say
        return True
    if not isinstance(state, dict) or (isinstance(optimizer, Adam) and not set(OF_ADAM) <= state.keys()):
        return False
    alike = [state[key] for key in LIKE_WEIGHTS if state.get(key) is not None]
    step = state.get("step")
    return all(isinstance(v, Tensor) and v.shape == weight.shape and v.is_floating_point() for v in alike) and (
        step is None or (isinstance(step, Tensor) and step.numel() == 1)
    )


def take_over(optimizer: Optimizer, scheduler: LRScheduler | None, built: Sequence[Group]) -> list[str]:
    """Give the restored groups the options of this run's config, and return what changed, in words.

    The learning rate keeps its place in the schedule. Without a changed option nothing changes, to the bit.
    """
    changes: dict[str, None] = {}
    for i, (group, own) in enumerate(zip(optimizer.param_groups, built, strict=True)):
        before = group.get("initial_lr", group["lr"])
        rate = own["initial_lr" if "initial_lr" in own else "lr"]
        driven = {"betas", "momentum"} if "max_momentum" in own else set()  # by a OneCycleLR
        for key in own.keys() - {"lr", "initial_lr"} - driven:
            if _differs(group[key], own[key]):
                if key not in ("fused", "foreach"):  # how it is computed, not what
                    changes[f"{key} {own[key]} (before: {group[key]})"] = None
                group[key] = own[key]
        if rate != before:
            changes[f"learning rate {rate:.3g} (before: {before:.3g})"] = None
            group["lr"] = group["lr"] * rate / before if before else rate
            group["initial_lr"] = rate
            if (bases := getattr(scheduler, "base_lrs", None)) is not None:  # a SequentialLR has none
                bases[i] = float(rate)
        if group.get("fused"):
            _move_steps(optimizer, group)
    return list(changes)


def _move_steps(optimizer: Optimizer, group: Group) -> None:
    """Move step counts to their weights' device, where fused kernels read them; unfused ones keep them on the CPU."""
    for weight in group["params"]:
        state = optimizer.state.get(weight)
        step = state.get("step") if isinstance(state, dict) else None
        if isinstance(state, dict) and isinstance(step, Tensor):
            state["step"] = step.to(weight.device, torch.float32)


def _differs(one: Any, other: Any) -> bool:
    return bool(list(one) != list(other)) if isinstance(one, list | tuple) else bool(one != other)
