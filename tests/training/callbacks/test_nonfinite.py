"""A step with a loss or gradients that are not finite changes nothing, and the run stops soon after."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detlab.training.callbacks.nonfinite import NonFiniteGuard, NonFiniteLossError


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True)


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1, fused=True)


class Steps:
    """Optimiser steps of a small net under a guard, as Lightning would call it."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer], check_every: int = 5, scaled: bool = False) -> None:
        self.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.optimizer = make(list(self.net.parameters()))
        self.guard = NonFiniteGuard(check_every=check_every)
        plugin = SimpleNamespace(scaler=object() if scaled else None)
        self.trainer = SimpleNamespace(global_step=0, current_epoch=0, datamodule=None, precision_plugin=plugin)

    def __call__(self, factor: float = 1.0) -> torch.Tensor:
        self.optimizer.zero_grad()
        self.guard.on_train_batch_start(self.trainer, self.net, SimpleNamespace(ids=torch.tensor([7, 8])), 0)
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(self.trainer.global_step)) * factor
        loss = self.net(inputs).square().sum() + self.net[0](inputs).sum()
        self.guard.on_before_backward(self.trainer, self.net, loss)
        loss.backward()
        self.guard.on_before_optimizer_step(self.trainer, self.net, self.optimizer)
        self.optimizer.step()
        self.trainer.global_step += 1
        self.guard.on_train_batch_end(self.trainer, self.net, None, None, 0)
        return loss.detach()

    def everything(self) -> list[torch.Tensor]:
        """Weights, batch statistics and the optimiser's state."""
        states = [v for s in self.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
        return [v.detach().clone() for v in (*self.net.state_dict().values(), *states)]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_a_bad_step_changes_nothing_nor_does_one_after_it(make: Callable, factor: float) -> None:
    step = Steps(make)
    step()
    first = step.everything()
    step()
    before = step.everything()
    assert not same(first, before)
    step(factor)
    assert same(before, step.everything())
    step()
    assert same(before, step.everything())
    with pytest.raises(NonFiniteLossError, match=r"not finite at step 2 \(image ids \[7, 8\]"):
        step()


def test_a_loss_scaler_keeps_its_infinite_gradients() -> None:
    """Scaled gradients overflow in every fp16 run; only a loss that is not finite itself counts."""
    step = Steps(sgd, check_every=1, scaled=True)
    for parameter in step.net.parameters():
        parameter.register_hook(lambda g: g * float("inf"))
    step()
    with pytest.raises(NonFiniteLossError):
        step(float("nan"))


def test_after_a_bad_step_the_scaler_is_made_to_skip() -> None:
    step = Steps(sgd, scaled=True)
    assert torch.isfinite(step())
    step(float("nan"))
    assert torch.isnan(step())


def test_checkpoints_ask_first() -> None:
    step = Steps(sgd, check_every=50)
    step(float("nan"))
    with pytest.raises(NonFiniteLossError):
        step.guard.look(step.trainer)


@pytest.mark.parametrize("value", [0, 51])
def test_nonsense_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"check_every={value}"):
        NonFiniteGuard(check_every=value)
