"""Whether a checkpoint's config makes the model whose tensors it holds, found out before that model takes memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from detlab.config.compose import make_detector
from detlab.errors import ConfigError

SPARE_PARTS = 4096  # modules and parameters that a constructor may make beside those it keeps; a ResNet-152 has 622
ANOTHER = "give a checkpoint as detlab train wrote it"
PARTS_A_TENSOR = 8  # modules and parameters for each stored tensor, at most; ours have less than 3


def check_shapes(model: Mapping[str, Any], num_classes: int, state: Mapping[str, Tensor]) -> None:
    """Build a model without memory, on the meta device, and compare its tensors with those of a checkpoint.

    Args:
        model: config of the detector, without weights of its own.
        state: of the detector, by name.

    Raises:
        ConfigError: other names or shapes, or many more layers than the checkpoint has tensors; the reason.
    """
    try:
        with torch.device("meta"), _few_parts(SPARE_PARTS + PARTS_A_TENSOR * len(state), len(state)):
            own = make_detector(model, num_classes).state_dict()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" in str(error):  # a user's own class that computes as it is made; nothing of conf/ does
            return
        raise
    if own.keys() != state.keys():
        name = min(own.keys() ^ state.keys())
        raise ConfigError(f"its model has {'a' if name in own else 'no'} tensor {name}, unlike its weights; {ANOTHER}.")
    for name, tensor in own.items():
        if state[name].is_complex():
            raise ConfigError(f"its weights have complex numbers in {name}; {ANOTHER}.")
        if tensor.is_floating_point() and not state[name].is_floating_point():
            raise ConfigError(f"its weights have whole numbers in {name}; {ANOTHER}.")
        if tensor.shape != state[name].shape:
            raise ConfigError(
                f"its model has {name} of {list(tensor.shape)}, but its weights have {list(state[name].shape)}; "
                f"{ANOTHER}."
            )


@contextmanager
def _few_parts(most: int, stored: int) -> Iterator[None]:
    """Refuse to make more than so many modules and parameters, which take memory even without their numbers."""
    made = 0

    def count(module: nn.Module, name: str, part: Any) -> None:
        nonlocal made
        made += 1
        if made > most:
            raise ConfigError(
                f"its model has more than {most} layers, but its weights are {stored} tensors; {ANOTHER}."
            )

    hooks = [register_module_module_registration_hook(count), register_module_parameter_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
