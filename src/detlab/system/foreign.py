"""Read untrusted JSON and YAML files, and check nested containers from any source, with limits on depth and size.

`reading` reads the text; this module adds the file's name to errors and limits the nesting. A checkpoint may hold a
list that contains itself, or forty lists that each contain the previous one twice, which is 2^40 nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from detlab.system import reading
from detlab.system.reading import ReadError

MAX_DEPTH = reading.DEPTH  # levels of nested lists and maps; a run's config has about 8
MAX_NODES = 50_000  # values in a config, counting a shared container at each place; a run's config has about 300
MAX_TEXT = 1 << 30  # bytes of a JSON file; COCO's largest annotation file has 470 million
SCALARS = (str, int, float, bool, type(None))


class ForeignFileError(ValueError):
    """A file cannot be read safely; the message is one sentence that names the file or the place in it."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe without a writer is refused and does not block.

    Raises:
        ForeignFileError: the file is missing, not readable, or no regular file.
    """
    try:
        return reading.open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ForeignFileError(_sentence(path, error)) from error


def read_json_bounded(path: Path, most: int = MAX_TEXT) -> Any:
    """The content of a JSON file as plain containers.

    Raises:
        ForeignFileError: no regular file, no JSON, larger than `most` bytes, or nested deeper than MAX_DEPTH.
    """
    return parse_json(_text(path, most), str(path))


def parse_json(text: str, name: str) -> Any:
    """JSON text as plain containers; messages call it `name`.

    Raises:
        ForeignFileError: the text is no JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        value = reading.load_json(text)
    except ReadError as error:
        raise ForeignFileError(f"{name} {error}.") from error
    level = [value]
    for _ in range(MAX_DEPTH + 1):  # breadth first, without a limit on nodes: parsed text shares no containers
        level = [v for n in level if type(n) in (dict, list) for v in (n.values() if type(n) is dict else n)]
        level = [v for v in level if type(v) in (dict, list)]
        if not level:
            return value
    raise ForeignFileError(f"{name} is nested too deep.")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file with one document, see `reading.load_yaml`.

    Raises:
        ForeignFileError: no regular file, or YAML that `load_yaml` refuses.
    """
    return parse_yaml(_text(path, reading.YAML_BYTES), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """YAML text as plain containers, see `read_yaml`; messages call it `name`."""
    try:
        return reading.load_yaml(text)
    except ReadError as error:
        raise ForeignFileError(f"{name} {error}.") from error


def walk(node: Any, name: str = "The config") -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """(place, value) of all values in nested dicts and lists, parents first; the place of `node` itself is ().

    A shared container is visited at each of its places, since the rules for a value depend on its place.

    Raises:
        ForeignFileError: a container contains itself, more than MAX_DEPTH levels, or more than MAX_NODES values.
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
            raise ForeignFileError(f"{name} is nested too deep.")
        yield place, value
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        around = above | {id(value)}
        if count + len(stack) + len(value) > MAX_NODES:
            raise ForeignFileError(f"{name} holds more than {MAX_NODES:,} values, counting shared ones each time.")
        stack.extend(((*place, key), item, around) for key, item in inside)


def plain(node: Any, name: str = "The config") -> Any:
    """A deep copy of nested dicts and lists that shares no containers and holds only str, int, float, bool and None.

    Raises:
        ForeignFileError: see `walk`; or a value or key has another type, such as a tensor, a tuple or bytes.
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


def _text(path: Path, most: int) -> str:
    try:
        return reading.read_text(path, most).content
    except (OSError, ValueError) as error:
        raise ForeignFileError(_sentence(path, error)) from error


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, ReadError):
        return f"{path} {error}."
    return f"{path} cannot be read ({getattr(error, 'strerror', None) or error})."
