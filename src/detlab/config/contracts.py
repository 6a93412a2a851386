"""Type annotations as contracts of config values: check a value, and describe in words what is allowed."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from detlab.ranges import Like, Odd, OneOf, OptionsOf, Range, Size

LARGEST = {int: 2**63 - 1, float: 3.4e38}  # of torch's int64 and float32
LISTS = (list, tuple, Sequence, Iterable)
WITHOUT_OPTIONS = ("builtins", "typing", "torch.nn.modules.module")  # of object, Protocol, nn.Module
WORDS = {bool: "true or false", str: "text", type(None): "null"}


class Options(NamedTuple):
    """The keyword arguments of a class or function."""

    known: dict[str, Any]  # {name: annotation}
    is_open: bool  # whether names outside `known` are accepted too
    own: list[str]  # names to suggest in messages


@cache
def options_of(target: Callable[..., Any]) -> Options:
    """The arguments that a config node may set on this class or function.

    `**kwargs` of a class's constructor are looked up in the next class of its method resolution order that defines
    a constructor; `**kwargs` annotated with `OptionsOf` are looked up in the class named there.
    """
    known: dict[str, Any] = {}
    for function in _constructors(target):
        hints = _hints(function)
        further: Any = None
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                further = hints.get(parameter.name, Any)
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != "self":
                known.setdefault(parameter.name, hints.get(parameter.name, Any))
        if further is None:
            return Options(known, False, list(known))
        forwarded: list[Callable[..., Any]] = [part.cls for part in _facts(further) if isinstance(part, OptionsOf)]
        if forwarded:
            there = options_of(forwarded[0])
            return Options(there.known | known, there.is_open, [*known, *there.own])
    by_new = inspect.isclass(target) and not known and target.__new__ is not object.__new__
    return Options(known, bool(known) or by_new or not inspect.isclass(target), list(known))


def fits(value: Any, contract: Any) -> bool:
    """Whether a plain annotation allows a value. Numbers fit int64 or float32; a bool is no int, an int no text."""
    base, facts = _base(contract), _facts(contract)
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if base is Any:
        return True
    if base is None or base is type(None):
        return value is None
    if base in (int, float):
        number = isinstance(value, int) or (base is float and isinstance(value, float))
        return (
            number
            and not isinstance(value, bool)
            and -LARGEST[base] <= value <= LARGEST[base]
            and _within(value, facts)
        )
    if base in (bool, str):
        return type(value) is base and _within(value, facts)
    if (origin or base) in LISTS:
        return isinstance(value, list | tuple) and _within(value, facts) and _entries_fit(value, origin, arguments)
    return False


def is_plain(contract: Any) -> bool:
    """Whether an annotation consists only of numbers, text, booleans, null and lists of these."""
    base = _base(contract)
    if base in (int, float, bool, str, None, type(None)):
        return True
    origin, arguments = get_origin(base), get_args(base)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType) or origin in LISTS:
        return bool(arguments) and all(is_plain(one) for one in arguments if one is not Ellipsis)
    return False


def admits_all(contract: Any) -> bool:
    """Whether an annotation allows every value: Any, a union with Any, or none at all."""
    base = _base(contract)
    if get_origin(base) in (Union, types.UnionType):
        return any(admits_all(one) for one in get_args(base))
    return base is Any or base is inspect.Parameter.empty or isinstance(base, TypeVar)


def entry_contract(contract: Any) -> Any:
    """The contract of a list's entries; None if the annotation allows no list or does not describe the entries."""
    base = _base(contract)
    if get_origin(base) in (Union, types.UnionType):
        return next((found for one in get_args(base) if (found := entry_contract(one)) is not None), None)
    return get_args(base)[0] if get_origin(base) in LISTS and get_args(base) else None


def long_enough(value: Sequence[Any], contract: Any) -> bool:
    """Whether a list has a number of entries that the annotation allows."""
    base = _base(contract)
    if get_origin(base) in (Union, types.UnionType):
        return any(long_enough(value, one) for one in get_args(base))
    return get_origin(base) not in LISTS or _within(value, _facts(contract))


def entries_of(contract: Any) -> tuple[dict[str, Any], Any] | None:
    """Contracts of a mapping's values: ({key: contract}, contract of all other keys or None).

    None if the annotation describes no mapping.
    """
    base = _base(contract)
    if get_origin(base) in (Union, types.UnionType):
        return next((found for one in get_args(base) if (found := entries_of(one)) is not None), None)
    if typing.is_typeddict(base):
        return typing.get_type_hints(base, include_extras=True), None
    if get_origin(base) in (dict, Mapping):
        return {}, get_args(base)[1]
    return None


def describe(contract: Any) -> str:
    """The allowed values in words, such as `a whole number of at least 1, or null`."""
    base, facts = _base(contract), _facts(contract)
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(describe(one) for one in sorted(arguments, key=lambda a: a is type(None))))
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, or {parts[-1]}"
    if origin is Literal:
        return _any_of([str(one) for one in arguments])
    if base in (int, float):
        odd = any(isinstance(fact, Odd) for fact in facts)
        what = "an odd number" if odd else "a whole number" if base is int else "a number"
        limits = [str(fact) for fact in facts if isinstance(fact, Range)]
        if limits and limits[0].startswith("just "):
            return limits[0].removeprefix("just ")
        joined = f" of {limits[0]}" if limits and limits[0].startswith("at ") else f" {limits[0]}" if limits else ""
        return what + joined
    if words := [fact.words for fact in facts if isinstance(fact, OneOf)]:
        return _any_of(list(words[0]))
    if shapes := [fact.words for fact in facts if isinstance(fact, Like)]:
        return shapes[0]
    if base in WORDS or base is None:
        return WORDS.get(base, "null")
    if (origin or base) in LISTS:
        return _described_list(facts, arguments)
    if entries_of(contract) is not None:
        return "a group of keys"
    return "a part with options of its own, chosen by its group"


def _described_list(facts: Sequence[Any], arguments: Sequence[Any]) -> str:
    inner = [describe(one) for one in arguments if one is not Ellipsis]
    each = f", each {inner[0]}" if inner else ""
    size = next((fact for fact in facts if isinstance(fact, Size)), None)
    if size is None:
        return f"a list{each}"
    if size.most == size.least:
        return f"a list of {size.least} entries{each}"
    if size.most is not None:
        return f"a list of {size.least} to {size.most} entries{each}"
    return f"a list of at least {size.least} {'entry' if size.least == 1 else 'entries'}{each}"


def _any_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _entries_fit(value: Sequence[Any], origin: Any, arguments: Sequence[Any]) -> bool:
    if origin is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(fits(v, a) for v, a in zip(value, arguments, strict=True))
    return not arguments or all(fits(entry, arguments[0]) for entry in value)


def _within(value: Any, facts: Iterable[Any]) -> bool:
    for fact in facts:
        if isinstance(fact, Range) and value not in fact:
            return False
        if isinstance(fact, Odd) and value % 2 == 0:
            return False
        if isinstance(fact, OneOf) and value not in fact.words:
            return False
        if isinstance(fact, Like) and not re.fullmatch(fact.pattern, value):
            return False
        if isinstance(fact, Size) and not fact.least <= len(value) <= (fact.most or len(value)):
            return False
    return True


def _base(contract: Any) -> Any:
    """An annotation without the metadata of `Annotated`."""
    return get_args(contract)[0] if get_origin(contract) is Annotated else contract


def _facts(contract: Any) -> Sequence[Any]:
    """The metadata that `Annotated` adds to an annotation."""
    return get_args(contract)[1:] if get_origin(contract) is Annotated else ()


def _constructors(target: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A function itself, or a class's constructors in the order in which they pass on keyword arguments."""
    if not inspect.isclass(target):
        return [target]
    classes = [cls for cls in target.__mro__ if "__init__" in vars(cls)]
    return [vars(cls)["__init__"] for cls in classes if cls.__module__ not in WITHOUT_OPTIONS]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations of a function; one that cannot be resolved becomes Any, without effect on the others."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation uses a name that is imported under TYPE_CHECKING only
        pass
    plain = inspect.unwrap(function)
    names = vars(sys.modules[plain.__module__])
    hints: dict[str, Any] = {}
    for name, annotation in getattr(plain, "__annotations__", {}).items():
        try:
            alone = type("Alone", (), {"__annotations__": {name: annotation}})
            hints[name] = typing.get_type_hints(alone, names, include_extras=True)[name]
        except Exception:
            hints[name] = Any
    return hints
