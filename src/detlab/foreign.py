"""Files from strangers: read whole and bounded, or refused in one sentence; nothing that they name is imported.

A file must be a regular one (a named pipe never ends, a device has no end), of a bounded size. JSON and YAML are plain
containers of bounded depth, and YAML has no aliases: forty of them, each naming the last twice, are 2^40 nodes.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MAX_DEPTH = 64  # of nested lists and maps; a run's config has about 8, COCO's annotations 5
MAX_NODES = 50_000  # of a config, each place where a shared container stands counted; a run's config has about 300
MAX_YAML = 4 << 20  # bytes; Ultralytics' largest data.yaml, of 1,203 classes, has about 30 thousand
MAX_TEXT = 1 << 30  # bytes; COCO's largest annotation file has 470 million
MAX_SCALAR = 4096  # characters without quotes in YAML: 1:1:1:... is a number to base 60, whose digits cost their square
BYTE_ORDER_MARKS = {  # in this order: UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SCALARS = (str, int, float, bool, type(None))
Plain = dict[str | int, "Plain"] | list["Plain"] | str | int | float | bool | None


class ForeignFileError(ValueError):
    """What a file holds cannot be read safely; one sentence that names the file or the place in it."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; a pipe without a writer does not block.

    Raises:
        ForeignFileError: there is none, it may not be read, or it is no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ForeignFileError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise ForeignFileError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a regular file.")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int = MAX_TEXT) -> bytes:
    """All bytes of a regular file.

    Raises:
        ForeignFileError: see `open_regular`; or it is larger than `most` bytes.
    """
    with open_regular(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise ForeignFileError(f"{path} cannot be read ({error.strerror or error}).") from error
    if len(content) > most:
        raise ForeignFileError(f"{path} is larger than {most:,} bytes.")
    return content


def read_text(path: Path, most: int = MAX_TEXT, *, fallback: str | None = None) -> str:
    """The text of a regular file: as its byte order mark says, else UTF-8, else `fallback`.

    Args:
        fallback: an encoding for what is not UTF-8, such as "latin-1"; None to refuse it.

    Raises:
        ForeignFileError: see `read_bytes`; or it is no text.
    """
    return decode(read_bytes(path, most), str(path), fallback=fallback)


def decode(content: bytes, name: str, *, fallback: str | None = None) -> str:
    """Bytes as text, see `read_text`; `name` is for the message. Line ends of all systems become a newline."""
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), b"")
    encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if mark or fallback is None:
            raise ForeignFileError(
                f"{name} is not {encoding.upper()} text (byte {error.start + len(mark)})."
            ) from error
        text = content.decode(fallback, errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json_bounded(path: Path, most: int = MAX_TEXT) -> Any:
    """What a JSON file holds.

    Raises:
        ForeignFileError: see `read_text`; or it is no JSON, or nested deeper than MAX_DEPTH.
    """
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str, name: str) -> Any:
    """JSON text as plain containers; `name` is for the message.

    Raises:
        ForeignFileError: it is no JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ForeignFileError(f"{name} is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise ForeignFileError(f"{name} is not JSON ({error}).") from error
    level = [value]
    for _ in range(MAX_DEPTH + 1):  # breadth first: what a file of text holds has no shared containers
        level = [v for n in level if type(n) in (dict, list) for v in (n.values() if type(n) is dict else n)]
        level = [v for v in level if type(v) in (dict, list)]
        if not level:
            return value
    raise ForeignFileError(f"{name} is nested deeper than {MAX_DEPTH} levels.")


def read_yaml(path: Path, most: int = MAX_YAML) -> Any:
    """What a YAML file of one document holds, without aliases, tags of Python, and bounded in size and depth.

    Raises:
        ForeignFileError: see `read_text`; or it is no such YAML.
    """
    return parse_yaml(read_text(path, most), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """YAML text as plain containers, see `read_yaml`; `name` is for the message."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=LOADER):  # events come one by one, before anything is composed
            if isinstance(event, yaml.AliasEvent):
                raise ForeignFileError(f"{name} holds the alias *{event.anchor}; write out what it stands for.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > MAX_SCALAR:
                raise ForeignFileError(f"{name} holds a value of {len(event.value)} characters without quotes.")
            if depth > MAX_DEPTH:
                raise ForeignFileError(f"{name} is nested deeper than {MAX_DEPTH} levels.")
        return yaml.load(text, Loader=LOADER)
    except ForeignFileError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        # ValueError: 2001-99-99; the others: a tag such as !!bool or !!timestamp on another word
        reason = " ".join(str(error).split())[:200]
        raise ForeignFileError(f"{name} is not readable YAML ({reason}).") from error


def walk(node: Any, name: str = "The config") -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of nested dicts and lists with its place, parents first; a container's own place is ().

    A shared container is met at each place where it stands, for what a value may be depends on its place.

    Raises:
        ForeignFileError: a container holds itself, more than MAX_DEPTH levels, or more than MAX_NODES values.
    """
    stack: list[tuple[tuple[str | int, ...], Any, frozenset[int]]] = [((), node, frozenset())]
    count = 0
    while stack:
        place, value, above = stack.pop()
        count += 1
        if count > MAX_NODES:
            raise ForeignFileError(f"{name} holds more than {MAX_NODES:,} values, counting shared ones each time.")
        if not isinstance(value, dict | list | tuple):
            yield place, value
            continue
        if id(value) in above:
            raise ForeignFileError(f"{name} holds itself at {'.'.join(map(str, place))}.")
        if len(place) >= MAX_DEPTH:
            raise ForeignFileError(f"{name} is nested deeper than {MAX_DEPTH} levels.")
        yield place, value
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        around = above | {id(value)}
        if count + len(stack) + len(value) > MAX_NODES:
            raise ForeignFileError(f"{name} holds more than {MAX_NODES:,} values, counting shared ones each time.")
        stack.extend(((*place, key), item, around) for key, item in inside)


def plain(node: Any, name: str = "The config") -> Any:
    """A copy of nested dicts and lists in which nothing is shared, of str, int, float, bool and null alone.

    Raises:
        ForeignFileError: see `walk`; or a value or key of another type, such as a tensor, a tuple or bytes.
    """
    made: dict[tuple[str | int, ...], Any] = {}
    for place, value in walk(node, name):
        where = ".".join(map(str, place)) or "its top"
        if type(value) not in (dict, list, *SCALARS):
            raise ForeignFileError(f"{name} holds a {type(value).__name__} at {where}, which no config does.")
        copy: Any = {} if type(value) is dict else [None] * len(value) if type(value) is list else value
        if type(value) is dict and not all(type(key) in (str, int) for key in value):
            raise ForeignFileError(f"{name} has a key at {where} that is no word.")
        if type(value) in (dict, list):
            made[place] = copy
        if place:
            made[place[:-1]][place[-1]] = copy
        elif type(value) not in (dict, list):
            return copy
    return made[()]
