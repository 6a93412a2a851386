"""A step with gradients that are not finite changes nothing, and the run stops soon after."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detlab.callbacks.nonfinite import NonFiniteGuard, NonFiniteLossError


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    ],
)
def test_a_bad_step_changes_neither_weights_nor_state(make: object) -> None:
    net = nn.Linear(3, 2)
    optimizer = make(net.parameters())
    guard = NonFiniteGuard(check_every=5)
    trainer = SimpleNamespace(global_step=0)

    def step(factor: float) -> None:
        optimizer.zero_grad()
        (net(torch.ones(1, 3)).sum() * factor).backward()
        guard.on_train_batch_start(trainer, None, SimpleNamespace(ids=torch.tensor([7, 8])), 0)
        guard.on_before_optimizer_step(trainer, None, optimizer)
        optimizer.step()
        trainer.global_step += 1
        guard.on_train_batch_end(trainer, None, None, None, 0)

    step(1.0)
    first = net.weight.detach().clone()
    step(1.0)
    assert not torch.equal(first, net.weight)

    def everything() -> list[torch.Tensor]:
        states = [v for s in optimizer.state.values() for v in s.values() if v.dim()]
        return [v.detach().clone() for v in (net.weight, *states)]

    before = everything()
    step(float("inf"))
    after = everything()
    assert len(before) > 2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    step(1.0)
    with pytest.raises(NonFiniteLossError, match=r"step 2 \(image ids \[7, 8\]\)"):
        step(1.0)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="check_every=0"):
        NonFiniteGuard(check_every=0)
