"""Trains every family for a few steps, in one process or as one of several, and writes what the weights became.

Started by tests/training/test_processes.py: `python -m tests.training.equality_worker OUT FAMILY...`, with torchrun's
variables set for several processes.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch

from detlab.config.compose import compose_config, plain_config
from detlab.training.build import build
from detlab.training.environment import set_up_torch

IMAGES_PER_STEP = int(os.environ.get("IMAGES_PER_STEP", 4))
SMALL = [
    "data.side=64",
    "data.size=64",
    "data.canvas=[64, 64]",
    "data.sizes=[14, 30]",
    f"data.counts={{train: {5 * IMAGES_PER_STEP}, val: 5, test: 2}}",
    "data.eval_batch_size=2",  # three batches of five images
    "trainer.log_every_n_steps=1",
    "data.num_workers=0",
    "data.cache_dir=null",
    "augment=flip",
    "callbacks=none",
    "callbacks.progress=null",
    "logger=none",
    "optim=sgd",
    "optim.lr=0.01",
    f"optim.base_batch_size={IMAGES_PER_STEP}",
    "lr_schedule.warmup_steps=0",
    "trainer.num_sanity_val_steps=0",
    "trainer.max_epochs=1",
    "threads=1",
    "test=false",
    "name=equality",
]
FPN = "model.neck.width=32"
SCALES = ["multiscale=small", "multiscale.factors=[1.0, 1.5]", "multiscale.every=1"]
FAMILIES: dict[str, list[str]] = {
    "rpn": [FPN],
    "retinanet": [FPN, "model.head.width=32", "model.head.depth=1"],
    "ssd": [],
    "refinedet": ["model.connection.width=32"],
    "yolo": ["model.neck.widths=[16, 16, 16]", "model.neck.norm=gn", "model.head.norm=gn", *SCALES],
    "yolov2": ["model.neck.width=32", "model.neck.norm=gn", "model.head.width=32", "model.head.norm=gn"],
    "yolov1": ["model/neck=none", "model.head.width=16", "model.head.dropout=0"],  # its neck leaves 1 x 1 of 64 px
    "faster_rcnn": [FPN, "model.head.width=64", "model.sampler.size=16"],
    "fast_rcnn": [FPN, "model.head.width=64", "data.proposal_count=100"],
    "sppnet": ["model.head.width=64", "model.head.dropout=0", "data.proposal_count=100"],
    "rcnn": ["model.pool.crop=32", "model.pool.context=4", "model.sampler.size=8", "data.proposal_count=50"],
}
RESNET = ["model/backbone=resnet18", "model.backbone.norm=gn"]


class KeepGradients(L.Callback):
    """The gradients of the first step, after the processes' mean."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Copy them once."""
        if not self.gradients:
            self.gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def run(family: str, precision: str, steps: int, out: Path, judged: bool = False) -> dict[str, Any]:
    """Weights after `steps`, gradients of the first, and what was logged, of validation too where it is judged."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    trainer = ["trainer=ddp_cpu", f"trainer.devices={world}"] if world > 1 else ["trainer=cpu"]
    overrides = [
        f"model={family}",
        *trainer,
        *SMALL,
        *RESNET,
        *FAMILIES[family],
        f"data.batch_size={IMAGES_PER_STEP // world}",
        f"trainer.precision={precision}",
        f"trainer.limit_train_batches={steps}",
        f"trainer.limit_val_batches={1.0 if judged else 0}",
        f"paths.run_dir={out / family}",
    ]
    config = plain_config(compose_config("train", overrides))
    set_up_torch(config)
    made = build(config)
    keep = KeepGradients()
    made.trainer.callbacks.append(keep)
    made.trainer.fit(made.module, datamodule=made.data)
    assert made.trainer.global_step == steps
    logged = {name: float(value) for name, value in made.trainer.callback_metrics.items()}
    return {"state": made.module.detector.state_dict(), "gradients": keep.gradients, "logged": logged}


def main(out: Path, families: list[str]) -> None:
    """Both precisions of every family, and a judged step; rank 0 writes."""
    for family in families:
        results = {"double": run(family, "64-true", 5, out), "single": run(family, "32-true", 1, out)}
        results["judged"] = run(family, "64-true", 1, out, judged=True)
        if int(os.environ.get("RANK", 0)) == 0:
            torch.save(results, out / f"{family}.pt")
            shutil.rmtree(out / family)  # checkpoints, up to half a gigabyte a family


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
