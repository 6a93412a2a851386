"""Parameter groups, learning rates that follow the batch, schedules."""

import pytest
import torch
from torch import nn

import detlab
from detlab.training.console import optimiser_line
from detlab.training.optim import adamw, effective_lr, parameter_groups, sgd
from detlab.training.schedules import constant, cosine, multistep

COMMON = {"lr": 0.01, "base_batch_size": 16, "decay_norm_and_bias": False, "backbone_lr_mult": 0.1}


def test_groups_hold_every_trainable_parameter_once() -> None:
    detector = detlab.build_detector(["model=retinanet", "model.backbone.frozen_stages=2"], num_classes=3)
    groups = parameter_groups(detector, 0.01, 1e-4, False, 0.1)
    listed = [id(p) for g in groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in detector.parameters() if p.requires_grad)
    names = {id(p): n for n, p in detector.named_parameters()}
    for group in groups:
        for p in group["params"]:
            backbone = names[id(p)].startswith("backbone.")
            assert group["lr"] == pytest.approx(0.001 if backbone else 0.01)
            assert group["weight_decay"] == (1e-4 if p.dim() > 1 else 0)


@pytest.mark.parametrize(
    ("batch", "scaling", "rate"),
    [(16, "linear", 0.01), (2, "linear", 0.00125), (64, "sqrt", 0.02), (64, "none", 0.01)],
)
def test_rates(batch: int, scaling: str, rate: float) -> None:
    assert effective_lr(0.01, batch, 16, scaling) == pytest.approx(rate)


def test_unknown_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="optim.lr_scaling=log is not known"):
        effective_lr(0.01, 16, 16, "log")


def test_optimisers() -> None:
    net = nn.Linear(2, 2)
    made = sgd(net, total_batch=8, lr_scaling="linear", momentum=0.9, weight_decay=1e-4, **COMMON)
    assert {g["lr"] for g in made.param_groups} == {0.005}
    made = adamw(net, total_batch=16, fused=True, lr_scaling="sqrt", betas=[0.9, 0.99], weight_decay=0.05, **COMMON)
    assert made.param_groups[0]["betas"] == (0.9, 0.99)
    assert made.defaults["fused"]


def rates(make: object, total: int = 100) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = make(optimizer, total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_with_warm_up() -> None:
    found = rates(lambda o, n: cosine(o, n, final_factor=0.01, warmup_steps=10, warmup_factor=0.1))
    assert found[0] == pytest.approx(0.1)
    assert found[10] == pytest.approx(1.0)
    assert found[55] == pytest.approx(0.505, abs=0.01)  # the middle of 1 and 0.01
    assert found[-1] == pytest.approx(0.01, abs=2e-3)
    assert found[10:] == sorted(found[10:], reverse=True)


def test_multistep_milestones_are_shares() -> None:
    found = rates(lambda o, n: multistep(o, n, milestones=[0.5, 0.8], gamma=0.1, warmup_steps=5, warmup_factor=0.01))
    assert [found[i] for i in (49, 51, 79, 81)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warm_up_never_takes_more_than_a_fifth() -> None:
    found = rates(lambda o, n: constant(o, n, warmup_steps=500, warmup_factor=0.01), total=50)
    assert found[0] == pytest.approx(0.01)
    assert found[10] == pytest.approx(1.0)


def test_an_optimiser_of_ones_own_needs_none_of_our_options() -> None:
    assert optimiser_line({"_target_": "mine.rms"}, 8) == "rms"
    assert optimiser_line({"_target_": "mine.rms", "lr": 0.1}, 8) == "rms, learning rate 0.1"
    ours = {"_target_": "detlab.training.optim.sgd", "lr": 0.01, "base_batch_size": 16, "lr_scaling": "linear"}
    assert optimiser_line(ours, 8) == "sgd, learning rate 0.005 (0.01 at 16 images, linear scaling)"
