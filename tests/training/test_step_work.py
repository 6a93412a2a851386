"""Work around a step that makes a host or a GPU wait, or grows with the number of layers, is done seldom or at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from detlab.data.datamodule import DetectionData
from detlab.tensors.structures import Batch, Detections
from detlab.training.callbacks import checkpoint
from detlab.training.callbacks.checkpoint import AGREE_EVERY, RunCheckpoint
from detlab.training.callbacks.nonfinite import NonFiniteGuard
from detlab.training.callbacks.pictures import ValidationPictures
from detlab.training.lightning_module import DetectionModule
from tests.batches import make_batch


class Operations(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not func.is_view:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norms", [2, 60])
def test_the_guard_takes_a_few_operations_whatever_the_number_of_norms(norms: int) -> None:
    net = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(norms)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    guard = NonFiniteGuard()
    plugin = SimpleNamespace(scaler=None)
    trainer: Any = SimpleNamespace(global_step=0, current_epoch=0, precision_plugin=plugin)
    loss = net(torch.randn(4, 2)).square().sum()
    loss.backward()
    guard.on_train_epoch_start(trainer, net)
    with Operations() as counted:
        guard.on_train_batch_start(trainer, net, SimpleNamespace(ids=torch.tensor([1])), 0)
        guard.on_before_backward(trainer, net, loss)
        guard.on_before_optimizer_step(trainer, net, optimizer)
    assert counted.count < 40 + norms  # what is left per norm are split views and flattened copies of one number


def test_batches_are_copied_beside_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked through the trainer's own connector: with a data module, Lightning reads no hook of the module's."""
    asked = []
    monkeypatch.setattr(Batch, "to", lambda self, device, non_blocking=False: asked.append((device.type, non_blocking)))
    batch = make_batch([[[4, 4, 30, 30]]], [[0]])
    trainer: Any = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module, data = DetectionModule.__new__(DetectionModule), DetectionData.__new__(DetectionData)
    nn.Module.__init__(module)
    trainer._data_connector.attach_datamodule(module, data)
    hook = trainer._data_connector._datahook_selector.get_instance("transfer_batch_to_device")
    for device in ("cuda", "cpu", "mps"):
        hook.transfer_batch_to_device(batch, torch.device(device), 0)
    assert asked == [("cuda", True), ("cpu", False), ("mps", False)]


def test_detections_are_copied_for_the_first_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    to = Detections.to
    monkeypatch.setattr(Detections, "to", lambda self, *rest: copied.append(len(self.boxes)) or to(self, *rest))
    pictures = ValidationPictures(str(tmp_path), count=3)
    trainer: Any = SimpleNamespace(is_global_zero=True, sanity_checking=False)
    batch = make_batch([[[4, 4, 30, 30]], [[9, 9, 30, 30]]], [[0], [1]])
    empty = Detections(torch.zeros(2, 1, 4), torch.zeros(2, 1), torch.full((2, 1), -1))
    for number in range(4):
        pictures.on_validation_batch_end(trainer, None, {"detections": empty}, batch, number)  # type: ignore[arg-type]
    assert copied == [2, 2]
    assert len(pictures._kept) == 3


def test_processes_agree_every_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed: list[int] = []
    monkeypatch.setattr(checkpoint, "together", lambda: True)
    callback = RunCheckpoint(dirpath=str(tmp_path), monitor="val/map", every_n_steps=7)
    monkeypatch.setattr(callback._agreement, "largest", lambda number: agreed.append(callback._step) or 0)
    trainer: Any = SimpleNamespace(global_step=0)
    for step in range(1, 13):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, None, None, None, step)  # type: ignore[arg-type]
    assert agreed == [AGREE_EVERY, 7, 8, 9, 10, 11, 12]  # from step 7 on a checkpoint is due, which nothing saves here
