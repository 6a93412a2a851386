"""Instantiate the objects that config nodes describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from detlab.config.explaining import of_its_own, of_part
from detlab.errors import ConfigError, DataError

FAULTS = (AttributeError, IndexError, NameError, AssertionError, NotImplementedError)  # bugs in code, not in a config


def build_part(node: Mapping[str, Any], **facts: Any) -> Any:
    """Instantiate a config node of plain containers; `facts` are arguments known only at run time, such as K.

    Raises:
        ConfigError, DataError: the part's constructor raised an error; the text is kept. Errors that point to a bug
            in its code (`FAULTS`) pass through with their traceback.
    """
    try:
        return instantiate(dict(node), _convert_="all", **facts)
    except (InstantiationException, ValueError, TypeError) as error:
        cause = of_its_own(error)
        if isinstance(cause, ConfigError | DataError):
            raise cause from cause.__cause__  # not from `error`, which was made from it: a chain without an end
        if isinstance(cause, FAULTS):
            raise
        raise ConfigError(of_part(error)) from error


def class_of(target: str) -> type:
    """The class that a `_target_` names; for a function, the class in its return annotation.

    Raises:
        ConfigError: nothing of that name can be imported.
    """
    found = object_of(target)
    if isinstance(found, type):
        return found
    made = get_type_hints(found).get("return")
    return made if isinstance(made, type) else type(None)


def object_of(target: str) -> Any:
    """The class or function that a `_target_` names.

    Raises:
        ConfigError: nothing of that name can be imported.
    """
    try:
        return get_object(target)
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigError(f"_target_={target} cannot be imported ({type(cause).__name__}: {cause}).") from error
