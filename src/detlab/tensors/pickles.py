"""Follow a pickle's opcodes without executing them, to find out what torch's safe unpickler would take to read it.

Each value has a weight: the values within it, counting shared ones each time. Hashing or copying a value takes as many
steps. A tuple that holds another a thousand times, itself holding a third a thousand times, weighs a million and takes
6 kB of pickle; so do a list that is copied again and again, and numbers that all have the same hash.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

MAX_PICKLE = 64 << 20  # bytes without the tensors' data; a ResNet-152 with its optimiser needs about 1 million
MAX_OPCODES = 1_000_000  # some ten seconds; the same needs 0.1 million
MAX_STEPS = 10_000_000  # of hashing and copying
MAX_KEYS = 20_000  # keys other than text: of a state of an optimiser, one for each parameter
MAX_TUPLES = 16  # nesting depth of tuples; torch's own files reach 3
CALLED = re.compile(  # the globals that a pickle of tensors, sizes and plain containers needs
    r"collections (OrderedDict|Counter)|_codecs encode|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor(_v2|_v3)?|parameter)"
    r"|torch\.nn\.parameter Parameter|torch (Size|device|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch (u?int\d+|float\d+|bfloat16|bool|complex\d+|float8_\w+)"
)
MAPS = ("collections OrderedDict", "collections Counter")
PLAIN = {"NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"}
EMPTY = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(ValueError):
    """A pickle that is unsafe to read; the message says why."""


def check_pickle(file: BinaryIO) -> None:
    """Walk through a pickle's opcodes up to its end without executing them.

    Raises:
        PickleError: it calls a global outside CALLED, takes too many steps, nests tuples too deep, or is no pickle.
    """
    follower, start = _Follower(), file.tell()
    try:
        for number, (op, argument, position) in enumerate(pickletools.genops(file)):
            if (position or 0) - start > MAX_PICKLE:
                raise PickleError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
            if number > MAX_OPCODES:
                raise PickleError(f"its pickle has more than {MAX_OPCODES:,} instructions")
            follower.apply(op.name, argument)
    except PickleError:
        raise
    except Exception as error:  # pickletools and an empty stack raise many kinds
        raise PickleError(f"it is no pickle ({type(error).__name__})") from error


@dataclass(slots=True)
class _Value:
    """A value on the stack: its weight, its depth of nested tuples, and what it is."""

    weight: int = 1
    depth: int = 0
    text: bool = False
    name: str = ""  # of a global
    placed: bool = False  # lies in another value, whose weight is known by now


_Stack = list["_Value | None"]  # None: a mark


class _Follower:
    """The stack and memo of an unpickler, and what it has spent."""

    def __init__(self) -> None:
        self.stack: _Stack = []
        self.memo: dict[int, _Value] = {}
        self.steps = self.keys = 0

    def apply(self, name: str, argument: object) -> None:
        """One opcode; those that torch's unpickler does not have are refused."""
        if name in PLAIN:
            self.stack.append(_Value())
        elif name in ("BINUNICODE", "SHORT_BINSTRING"):
            self.stack.append(_Value(1 + len(str(argument)) // 8, text=True))
        elif name in EMPTY:
            self.stack.append(_Value())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[int(str(argument))] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(str(argument))])
        elif name == "MARK":
            self.stack.append(None)
        elif name == "TUPLE":
            self._tuple(self._to_mark())
        elif name in TUPLES:
            self._tuple([self._pop() for _ in range(TUPLES[name])])
        elif name == "GLOBAL":
            self._global(str(argument))
        elif name in ("APPEND", "APPENDS"):
            self._fill([self._pop()] if name == "APPEND" else self._to_mark())
        elif name in ("SETITEM", "SETITEMS"):
            items = [self._pop(), self._pop()] if name == "SETITEM" else self._to_mark()
            self._hash(items[1::2])  # the last value comes first
            self._fill(items)
        elif name in ("REDUCE", "NEWOBJ"):
            self._call()
        elif name == "BUILD":
            self._spend(self._pop().weight)
            self._top()
        elif name == "BINPERSID":  # a tensor's data, found by a key
            self._hash([self._pop()])
            self.stack.append(_Value())
        elif name not in ("PROTO", "STOP"):
            raise PickleError(f"it is no pickle of torch, which has no instruction {name}")

    def _pop(self) -> _Value:
        value = self.stack.pop()
        if value is None:
            raise PickleError("it is no pickle (a mark in the wrong place)")
        return value

    def _top(self) -> _Value:
        value = self.stack[-1]
        if value is None:
            raise PickleError("it is no pickle (a mark in the wrong place)")
        return value

    def _to_mark(self) -> list[_Value]:
        items = []
        while (item := self.stack.pop()) is not None:
            items.append(item)
        return items

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise PickleError(f"it takes more than {MAX_STEPS:,} steps of hashing and copying")

    def _hash(self, keys: Iterable[_Value], count: int = 0) -> None:
        others = [key for key in keys if not key.text]
        self._spend(sum(key.weight for key in others))
        self.keys += len(others) + count
        if self.keys > MAX_KEYS:
            raise PickleError(f"it has more than {MAX_KEYS:,} keys that are no text")

    def _tuple(self, items: list[_Value]) -> None:
        depth = 1 + max((item.depth for item in items), default=0)
        if depth > MAX_TUPLES:
            raise PickleError(f"it holds tuples within tuples, more than {MAX_TUPLES} deep")
        self.stack.append(_Value(1 + _weight(items), depth))

    def _fill(self, items: list[_Value]) -> None:
        target = self._top()
        if target.placed:
            raise PickleError("it fills a list or a map that lies in another one already")
        target.weight = min(target.weight + _weight(items), MAX_STEPS + 1)

    def _global(self, name: str) -> None:
        if not CALLED.fullmatch(name):
            raise PickleError(f"it calls {name.replace(' ', '.')}, which no checkpoint needs")
        self.stack.append(_Value(name=name))

    def _call(self) -> None:
        arguments, called = self._pop(), self._pop()
        self._spend(arguments.weight)
        if called.name in MAPS and arguments.weight > 1:
            self._hash((), arguments.weight)
        made = 1 if "_rebuild_" in called.name else arguments.weight  # a tensor is hashed by its identity
        self.stack.append(_Value(made, arguments.depth))


def _weight(items: list[_Value]) -> int:
    """Of values that are placed in another."""
    for item in items:
        item.placed = True
    return min(sum(item.weight for item in items), MAX_STEPS)
