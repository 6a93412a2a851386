"""Objects from config nodes: the only place, beside `compose`, where Hydra instantiates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class, get_object, instantiate


def build_part(node: Mapping[str, Any], **facts: Any) -> Any:
    """The object that a plain config node describes; facts are arguments which only the caller knows."""
    return instantiate(dict(node), _convert_="all", **facts)


def class_of(target: str) -> type:
    """The class that a `_target_` names."""
    return get_class(target)


def object_of(target: str) -> Any:
    """The class or function that a `_target_` names."""
    return get_object(target)
