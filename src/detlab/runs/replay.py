"""Repeat a training step whose loss was not finite, from the batch and weights that `NonFiniteGuard` dumped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detlab.errors import ConfigError
from detlab.model.samplers import draw_keys
from detlab.runs.checkpoints import Checkpoint, read_checkpoint, read_content
from detlab.runs.loading import detector_of
from detlab.system.printing import say
from detlab.tensors.structures import Batch, Proposals, Targets


class Dumped(NamedTuple):
    """A dumped batch with its step number and the weights before that step."""

    checkpoint: Checkpoint
    batch: Batch
    step: int


class Replayed(NamedTuple):
    """Result of a repeated step."""

    losses: dict[str, float]  # {name: value}; the faulty ones are not finite
    bad_gradients: list[str]  # parameters whose gradient is not finite
    bad_weights: list[str]  # tensors of the state that were not finite before the step


def load_dumped_batch(path: str | Path, trust: Sequence[str] = ()) -> Dumped:
    """Read a file of RUN/nonfinite with weights_only=True, and check the targets of its config.

    Raises:
        ConfigError: the file is no dumped batch.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"batch={path} is not a file; a run that met a loss that is not finite writes nonfinite/*.ckpt."
        )
    checkpoint = read_checkpoint(file, trust, finite=False)
    content = read_content(file)
    stored = content.get("batch")
    if not isinstance(stored, Mapping):
        raise ConfigError(f"batch={path} is a checkpoint without a batch; give a file of a run's nonfinite folder.")
    parts = {"targets": Targets, "proposals": Proposals}
    try:
        fields = {k: parts[k](**v) if k in parts and v is not None else v for k, v in stored.items()}
        batch, step = Batch(**fields), int(content["step"])
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"batch={path} holds a batch of other parts than detlab writes ({error}).") from error
    return Dumped(checkpoint, batch._replace(keys=draw_keys(checkpoint.config["seed"], step, batch.ids)), step)


def replay(dumped: Dumped) -> Replayed:
    """Repeat the step in float32 on the CPU: its losses, and the gradients and weights that are not finite."""
    detector = detector_of(dumped.checkpoint).train()
    losses = detector.loss(dumped.batch)
    torch.stack(list(losses.values())).sum().backward()
    spoiled = [n for n, p in detector.named_parameters() if p.grad is not None and not _finite(p.grad)]
    before = [n for n, value in dumped.checkpoint.state.items() if not _finite(value)]
    return Replayed({k: float(v.detach()) for k, v in losses.items()}, spoiled, before)


def repeat_step(path: str, trust: Sequence[str] = ()) -> bool:
    """Repeat the step of a file and print the result; returns whether all losses and gradients were finite."""
    dumped = load_dumped_batch(path, trust)
    result = replay(dumped)
    for line in as_lines(Path(path), dumped, result):
        say(line)
    return not result.bad_gradients and all(math.isfinite(v) for v in result.losses.values())


def as_lines(path: Path, dumped: Dumped, result: Replayed) -> list[str]:
    """A replay as lines of text."""

    def first(names: Sequence[Any]) -> str:
        return f"{len(names)} ({', '.join(map(str, names[:3]))}{' ...' if len(names) > 3 else ''})" if names else "none"

    counts = dumped.batch.truth.real.sum(1).tolist()
    return [
        f"batch       {path}: step {dumped.step}, image ids {dumped.batch.ids.tolist()}, boxes {counts}",
        f"losses      {', '.join(f'{k} {v:.4g}' for k, v in result.losses.items())}",
        f"not finite  weights before the step: {first(result.bad_weights)}; gradients: {first(result.bad_gradients)}",
    ]


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all()) if value.is_floating_point() else True
