"""The learning rate ends with `trainer.max_time`, by a clock that the tests turn."""

from __future__ import annotations

import math
from types import SimpleNamespace

import lightning as L  # noqa: N812 - Lightning's own convention
import pytest
import torch
from lightning.pytorch.callbacks import timer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from detlab.errors import ConfigError
from detlab.training.lightning_module import DetectionModule
from detlab.training.schedules import Schedule, constant, cosine, multistep
from detlab.training.time_limit import TimeLimit

STEPS, STEP_S = 100, 1.0  # steps that the epochs would allow, and seconds of each


class Net(L.LightningModule):
    """A weight whose rate is scheduled as a detector's; each step takes `STEP_S` of the fake clock."""

    lr_scheduler_step = DetectionModule.lr_scheduler_step

    def __init__(self, make: object, clock: SimpleNamespace) -> None:
        super().__init__()
        self.net, self.make, self.clock = nn.Linear(1, 1), make, clock
        self.rates: list[float] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        self.clock.now += STEP_S
        return self.net(batch[0]).sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.evaluated.append(self.global_step)

    def configure_optimizers(self) -> object:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = self.make(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=0.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(timer, "time", made)
    return made


def train(net: Net, tmp_path: object, max_time: str | None, **options: object) -> L.Trainer:
    data = DataLoader(TensorDataset(torch.ones(10, 1)), batch_size=1)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=STEPS // 10, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, check_val_every_n_epoch=7, default_root_dir=tmp_path,
        callbacks=[TimeLimit(max_time)] if max_time else [],
    )  # fmt: skip
    trainer.fit(net, data, DataLoader(TensorDataset(torch.ones(1, 1))), **options)
    return trainer


def to_cosine(optimizer: torch.optim.Optimizer, steps: int) -> Schedule:
    return cosine(optimizer, steps, final_factor=0.001, warmup_steps=10, warmup_factor=0.1)


def test_a_cosine_ends_with_the_time_and_its_last_weights_are_evaluated(
    clock: SimpleNamespace, tmp_path: object
) -> None:
    net = Net(to_cosine, clock)
    train(net, tmp_path, "00:00:00:25")  # a quarter of the steps
    assert len(net.rates) == 25
    assert net.evaluated == [25]  # no epoch of these would have been
    assert max(net.rates) == pytest.approx(0.93, abs=0.05)
    assert net.rates[0] == pytest.approx(0.1)
    assert net.rates[-1] < 0.01
    top = net.rates.index(max(net.rates))
    assert 4 <= top <= 6  # a fifth of 25 steps
    assert net.rates[:top] == sorted(net.rates[:top])
    assert net.rates[top:] == sorted(net.rates[top:], reverse=True)


def test_steps_that_end_before_the_time_rule(clock: SimpleNamespace, tmp_path: object) -> None:
    free, ample = Net(to_cosine, clock), Net(to_cosine, clock)
    train(free, tmp_path, None)
    train(ample, tmp_path, "00:01:00:00")
    assert ample.rates == free.rates  # to the last bit
    assert len(free.rates) == STEPS


def test_time_that_passes_between_steps_counts(clock: SimpleNamespace, tmp_path: object) -> None:
    net = Net(to_cosine, clock)
    slow = net.training_step

    def step(batch: list[Tensor], batch_idx: int) -> Tensor:
        clock.now += 20.0 * (net.global_step == 15)
        return slow(batch, batch_idx)

    net.training_step = step
    train(net, tmp_path, "00:00:00:50")
    assert len(net.rates) == 30
    assert net.rates[16] == pytest.approx(0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * 62 / 90)))  # 36 of 50 seconds


def test_a_resumed_run_goes_on_in_its_time(clock: SimpleNamespace, tmp_path: object) -> None:
    whole, first, second = (Net(to_cosine, clock) for _ in range(3))
    train(whole, tmp_path, "00:00:00:40")
    trainer = train(first, tmp_path, "00:00:00:20")
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    assert first.rates[-1] < 0.02
    clock.now += 1000.0  # between the two
    train(second, tmp_path, "00:00:00:40", ckpt_path=tmp_path / "stopped.ckpt")
    assert len(second.rates) == 20
    assert second.rates[1:] == pytest.approx(whole.rates[21:])


def test_step_schedules_and_constant_rates_follow_the_time(clock: SimpleNamespace, tmp_path: object) -> None:
    steps = Net(
        lambda o, n: multistep(o, n, milestones=[0.5, 0.79], gamma=0.1, warmup_steps=4, warmup_factor=0.5), clock
    )
    train(steps, tmp_path, "00:00:00:20")
    assert steps.rates[4:10] == [1.0] * 6
    assert steps.rates[10:16] == pytest.approx([0.1] * 6)
    assert steps.rates[16:] == pytest.approx([0.01] * 4)
    flat = Net(lambda o, n: constant(o, n, warmup_steps=50, warmup_factor=0.5), clock)
    train(flat, tmp_path, "00:00:00:20")
    assert flat.rates[4:] == pytest.approx([1.0] * 16)


def test_processes_take_the_largest_share() -> None:
    limit = TimeLimit("00:00:00:10")
    limit._agreement = SimpleNamespace(largest=lambda number: max(number, 1 << 29))
    assert limit.share() == 0.5


@pytest.mark.parametrize("text", ["ten minutes", "00:10:00", "00:00:00:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_time=.* is no length of time"):
        TimeLimit(text)
