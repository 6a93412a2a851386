"""Pretrained classification weights: from torchvision's servers, or from a file."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from detlab.tensors.archive import load_tensors, not_finite

VERSION = "IMAGENET1K_V1"  # the papers' recipe; torchvision's V2 weights were trained with a later one


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message names the option at fault and what would work."""


def load_weights(architecture: str, weights: str) -> dict[str, Tensor]:
    """State dict of a torchvision classification network.

    Args:
        architecture: torchvision's name, such as "resnet50".
        weights: "imagenet", or the path of a state dict (also one nested under "state_dict" or "model").

    Raises:
        WeightsError: no such file, not a state dict, or no network.
    """
    if weights == "imagenet":
        return _download(get_model_weights(architecture)[VERSION].url)
    return load_state(weights, f"a {architecture} state dict")


def load_state(weights: str, kind: str = "a state dict") -> dict[str, Tensor]:
    """State dict in a file, also one nested under "state_dict" or "model".

    Raises:
        WeightsError: no such file, or not a state dict.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"model.backbone.weights={weights} is neither 'imagenet' nor a file; give null for random weights, "
            f"imagenet to download, or the path of {kind}."
        )
    try:
        state = load_tensors(path)
    except Exception as error:
        raise WeightsError(
            f"model.backbone.weights={weights} is not a checkpoint that loads with weights_only=True "
            f"({type(error).__name__}); give the path of {kind}."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"model.backbone.weights={weights} holds no state dict; save one with torch.save(net.state_dict())."
        )
    return state


def _download(url: str) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"model.backbone.weights=imagenet could not download {url} ({error}); fetch that file elsewhere and "
            f"give its path, model.backbone.weights=PATH, or train from random weights with "
            f"model.backbone.weights=null."
        ) from error


def fill(network: torch.nn.Module, state: dict[str, Tensor], option: str) -> None:
    """Load `state` into `network`; extra entries, such as a classifier, are ignored.

    Raises:
        WeightsError: names the first entries that are missing, of another shape, no real numbers, or not finite.
    """
    own = network.state_dict()
    bad = [
        name
        for name, value in own.items()
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != value.shape)
    ]
    if bad:
        raise WeightsError(
            f"{option} does not fit this network: {len(bad)} of {len(own)} entries are missing or of another shape "
            f"(first: {', '.join(bad[:3])}); choose the backbone and norm the weights were made with."
        )
    bad = [n for n, v in own.items() if n in state and v.is_floating_point() and not state[n].is_floating_point()]
    if bad:
        raise WeightsError(
            f"{option} holds {str(state[bad[0]].dtype).removeprefix('torch.')} numbers in {len(bad)} of {len(own)} "
            f"entries (first: {bad[0]}), where the network has real ones; give weights in float32."
        )
    bad = not_finite({name: state[name] for name in own if name in state})
    if bad:
        raise WeightsError(
            f"{option} holds weights that are not finite or variances below 0, in {len(bad)} of {len(own)} entries "
            f"(first: {bad[0]}); give the file of a training that did not diverge."
        )
    network.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
