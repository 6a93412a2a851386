"""What strangers' files hold, bounded: JSON and YAML by file name, and nested containers of any origin.

`reading` reads text; here a file's name joins its error, and nesting is bounded: a checkpoint may hold a list that
holds itself, or forty lists that each hold the last twice, which are 2^40 nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from detlab.system import reading
from detlab.system.reading import ReadError

MAX_DEPTH = reading.DEPTH  # of nested lists and maps; a run's config has about 8
MAX_NODES = 50_000  # of a config, each place where a shared container stands counted; a run's config has about 300
MAX_TEXT = 1 << 30  # bytes; COCO's largest annotation file has 470 million
SCALARS = (str, int, float, bool, type(None))


class ForeignFileError(ValueError):
    """What a file holds cannot be read safely; one sentence that names the file or the place in it."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; a pipe without a writer does not block.

    Raises:
        ForeignFileError: there is none, it may not be read, or it is no regular file.
    """
    try:
        return reading.open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ForeignFileError(_sentence(path, error)) from error


def read_json_bounded(path: Path, most: int = MAX_TEXT) -> Any:
    """What a JSON file holds.

    Raises:
        ForeignFileError: no regular file of JSON, larger than `most` bytes, or nested deeper than MAX_DEPTH.
    """
    return parse_json(_text(path, most), str(path))


def parse_json(text: str, name: str) -> Any:
    """JSON text as plain containers; `name` is for the message.

    Raises:
        ForeignFileError: it is no JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        value = reading.load_json(text)
    except ReadError as error:
        raise ForeignFileError(f"{name} {error}.") from error
    level = [value]
    for _ in range(MAX_DEPTH + 1):  # breadth first: what a file of text holds has no shared containers
        level = [v for n in level if type(n) in (dict, list) for v in (n.values() if type(n) is dict else n)]
        level = [v for v in level if type(v) in (dict, list)]
        if not level:
            return value
    raise ForeignFileError(f"{name} is nested too deep.")


def read_yaml(path: Path) -> Any:
    """What a YAML file of one document holds: see `reading.load_yaml`.

    Raises:
        ForeignFileError: no regular file of such YAML.
    """
    return parse_yaml(_text(path, reading.YAML_BYTES), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """YAML text as plain containers, see `read_yaml`; `name` is for the message."""
    try:
        return reading.load_yaml(text)
    except ReadError as error:
        raise ForeignFileError(f"{name} {error}.") from error


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
            raise ForeignFileError(f"{name} is nested too deep.")
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


def _text(path: Path, most: int) -> str:
    try:
        return reading.read_text(path, most).content
    except (OSError, ValueError) as error:
        raise ForeignFileError(_sentence(path, error)) from error


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, ReadError):
        return f"{path} {error}."
    return f"{path} cannot be read ({getattr(error, 'strerror', None) or error})."
