"""Check types and ranges of a whole config before anything is built.

Each key of a node with `_target_` is checked against the annotation of the argument that it sets (`detlab.ranges` for
ranges), all other keys against `detlab.config.keys`. The message names the full key, the value as written on the
command line, the allowed values, and the default of the chosen options.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from detlab.config.contracts import (
    Options,
    admits_all,
    describe,
    entries_of,
    entry_contract,
    fits,
    is_plain,
    long_enough,
    options_of,
)
from detlab.config.keys import EXTRA, NEEDED, TOP
from detlab.config.parts import object_of
from detlab.errors import ConfigError

MEANT = {  # words that users write for a boolean, but that OmegaConf reads as text or numbers
    **dict.fromkeys(("no", "off", "n", "0"), False),
    **dict.fromkeys(("yes", "on", "y", "1"), True),
}


class Fault(NamedTuple):
    """A value that its key does not allow."""

    key: str
    value: Any
    contract: Any  # the annotation that it violates


def validate(
    config: Mapping[str, Any], command: str = "train", shipped: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Refuse the first wrong key or value of a resolved config in plain containers.

    Args:
        config: the command's config.
        command: name of the command, which determines the allowed top-level keys.
        shipped: returns the config of the chosen options with their defaults; called only if something is wrong.

    Raises:
        ConfigError: one sentence with the full key.
    """
    for key in TOP[command]:
        if key not in config and key in NEEDED[command]:
            works = (shipped() if shipped is not None else {}).get(key)
            hint = f"; use {key}={written(works)}" if fits(works, TOP[command][key]) and works is not None else ""
            raise ConfigError(f"{key} was taken away, and detlab {command} needs it{hint}.")
    refuse_faults(config, command, shipped)


def refuse_faults(
    config: Mapping[str, Any], command: str, shipped: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Refuse the first wrong value among the keys that a config has; arguments and error as of `validate`."""
    for key, value in config.items():
        contract = TOP[command].get(str(key))
        if contract is None:
            _refuse_misspelled(str(key), TOP[command])  # else a key that the user added with +, for interpolations
            continue
        for fault in value_faults(value, contract, str(key)):
            raise ConfigError(sentence(fault, shipped() if shipped is not None else {}))


def _refuse_misspelled(key: str, known: Iterable[str]) -> None:
    """Refuse an added key (+modell=ssd) that is almost an option: nothing would read it."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.8)
    if near:
        raise ConfigError(
            f"There is no option {key}; did you mean {near[0]}? A key added with + is read by your own "
            f"interpolations alone; give it a name that is not so close to {near[0]}."
        )


def validate_node(node: Mapping[str, Any], key: str) -> None:
    """Refuse the first wrong key or value of a node with `_target_` that stands at `key`.

    Raises:
        ConfigError: one sentence with the full key.
    """
    for fault in node_faults(node, key):
        raise ConfigError(sentence(fault, {}))


def has_option(target: str, name: str) -> bool:
    """Whether the class or function of a node's `_target_` takes an option."""
    return name in _options(target, target).known


def node_faults(node: Mapping[str, Any], key: str) -> Iterator[Fault]:
    """Wrong values of a node with `_target_` and of the nodes inside it.

    Raises:
        ConfigError: a target cannot be imported or lacks an option.
    """
    target = str(node["_target_"])
    options = _options(target, key)
    for name, value in node.items():
        if str(name).startswith("_"):
            continue
        if name in options.known:
            yield from value_faults(value, options.known[name], f"{key}.{name}")
        elif options.is_open:
            yield from value_faults(value, Any, f"{key}.{name}")
        else:
            raise ConfigError(_no_option(target, key, str(name), options))


def value_faults(value: Any, contract: Any, key: str) -> Iterator[Fault]:
    """Wrong values at `key` and below it, checked against a contract (an annotation)."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield from node_faults(value, key)
    elif isinstance(value, Mapping) and (entries := entries_of(contract)) is not None:
        known, other = entries
        for name, entry in value.items():
            if name not in known and other is None:
                raise ConfigError(_no_entry(key, str(name), list(known)))
            yield from value_faults(entry, known.get(name, other), f"{key}.{name}")
    elif isinstance(value, list) and (inner := entry_contract(contract)) is not None and not is_plain(contract):
        if not long_enough(value, contract):
            yield Fault(key, value, contract)
        for number, entry in enumerate(value):
            yield from value_faults(entry, inner, f"{key}.{number}")
    elif not admits_all(contract):
        if not fits(value, contract):
            yield Fault(key, value, contract)
    elif isinstance(value, Mapping | list):
        for name, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from value_faults(entry, Any, f"{key}.{name}")


def sentence(fault: Fault, shipped: Mapping[str, Any]) -> str:
    """The message: what is wrong, the allowed values, and a value that works."""
    key, value, contract = fault
    told = f"{key}={written(value)} must be {describe(contract)}"
    works = _works(fault, shipped)
    return f"{told}; use {works}." if works else f"{told}."


def _works(fault: Fault, shipped: Mapping[str, Any]) -> str:
    """An override that would work, as typed into a shell; empty if none is known."""
    key, value, contract = fault
    if fits(False, contract) and str(value).lower() in MEANT:
        return f"{key}={written(MEANT[str(value).lower()])}"
    # a name made of digits needs quotes
    if isinstance(value, int | float) and not isinstance(value, bool) and fits(str(value), contract):
        return f"'{key}=\"{value}\"'"
    if fits([value], contract):
        return f"{key}=[{written(value)}]"
    if (known := entries_of(contract)) is not None and not isinstance(value, Mapping):
        return f"{key}.{next(iter(known[0]), 'NAME')}=VALUE"
    default: Any = shipped
    for part in key.split("."):
        default = default.get(part, _ABSENT) if isinstance(default, Mapping) else _ABSENT
    if default in (_ABSENT, MISSING) or not fits(default, contract) or default == value:
        return f"{key}=null" if value is not None and fits(None, contract) else ""
    quoted = isinstance(default, list | str) and any(c in written(default) for c in " ,[]{}$()")
    return f"'{key}={written(default)}'" if quoted else f"{key}={written(default)}"


_ABSENT = object()
MISSING = "???"  # the default of an option that must be given


def written(value: Any) -> str:
    """A value as written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(written(v) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{written(v)}" for k, v in value.items()) + "}"
    return str(value)


def _options(target: str, key: str) -> Options:
    try:
        options = options_of(object_of(target))
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from error
    return Options(options.known | EXTRA.get(target, {}), options.is_open, options.own)


def _no_option(target: str, key: str, name: str, options: Options) -> str:
    near = difflib.get_close_matches(name, options.own, n=1, cutoff=0.6)
    if near:
        return f"{target} has no option {name!r}; did you mean {key}.{near[0]}?"
    return (
        f"{target} has no option {name!r}; {key}.{name} was set, by a budget, an experiment or on the command line, "
        f"for the option that {target.rsplit('.', 1)[-1]} replaces: leave one of the two out."
    )


def _no_entry(key: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {key}.{near[0]}?" if near else ""
    return f"There is no option {key}.{name}{hint}; keys there: {', '.join(known)}."
