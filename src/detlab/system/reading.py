"""Read untrusted files: regular files only, text in any common encoding, JSON and YAML of bounded depth."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import yaml

DEPTH = 100  # levels of nesting; annotation files have five, configs a dozen
YAML_BYTES = 4_000_000  # PyYAML reads some 500 kB a second
YAML_NODES = 200_000
SCALAR = 4096  # characters without quotes: 1:1:1:... is a number to base 60, parsed in quadratic time
FALLBACK = "cp1252"  # Windows tools that do not write UTF-8 use this encoding
MARKS = (  # byte order marks; UTF-32 first, since its marks begin with those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_FAST_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's loader is some ten times as fast
_FAST_BASE = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class ReadError(ValueError):
    """A file cannot be read. The text is the end of a sentence that begins with the file's name."""


class Text(NamedTuple):
    """A file's text and the encoding used to decode it."""

    content: str
    encoding: str
    guessed: bool = False  # no byte order mark, no declaration, and not valid UTF-8


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; pipes, devices and sockets are refused, because reading them may block.

    Raises:
        ReadError: the file is no regular file.
        OSError: the file is missing or not readable.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ReadError("is no regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        most: size limit in bytes; larger files are refused.

    Raises:
        ReadError: the file is no regular file, or too large.
        OSError: the file is missing or not readable.
    """
    with open_regular(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise ReadError(f"is larger than {most} bytes")
        return file.read()


def read_text(path: Path, most: int | None = None) -> Text:
    """The text of a regular file, without its byte order mark.

    Raises:
        ReadError: the file is no regular file, or too large.
        OSError: the file is missing or not readable.
    """
    return decode(read_bytes(path, most))


def decode(data: bytes, declared: str | None = None) -> Text:
    """Decode bytes; the encoding is that of the byte order mark, UTF-16 (found by its zero bytes), the declared one,
    UTF-8 or Windows-1252, whichever fits first.

    Args:
        declared: encoding that the file names; ignored if the bytes are not valid in it.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return Text(data[len(mark) :].decode(encoding, "replace"), encoding)
    for likely in (_by_zeros(data), _known(declared), "utf-8"):
        if likely is None:
            continue
        try:
            return Text(data.decode(likely).removeprefix("\ufeff"), likely)
        except (UnicodeError, ValueError):  # some codecs raise a plain ValueError
            continue
    # Five bytes are undefined in Windows-1252; latin-1 defines them.
    return Text(data.decode("latin-1").translate(_WINDOWS), FALLBACK, guessed=True)


def load_json(text: str) -> Any:
    """Parse JSON text; an object with a repeated key is refused.

    Raises:
        ReadError: the text is no JSON, repeats a key, or is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except RecursionError:
        raise ReadError("is nested too deep") from None
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(f"is not readable as json ({str(error)[:200]})") from error


def load_yaml(text: str, *, as_written: bool = False) -> Any:
    """Parse YAML text of bounded depth and size; aliases and Python tags are refused.

    Args:
        as_written: keep all scalars as text, so that class names such as yes, no, on, 010 and 1e3 stay names.

    Raises:
        ReadError: the text is no YAML, has an alias, repeats a key, or is nested too deep.
    """
    if len(text) > YAML_BYTES:
        raise ReadError(f"is larger than {YAML_BYTES} bytes")
    try:
        _bounded(text)
        return yaml.load(text, Loader=_AsWrittenSafeLoader if as_written else _UniqueSafeLoader)
    except RecursionError:
        raise ReadError("is nested too deep") from None
    except ReadError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ReadError(f"is not readable YAML ({' '.join(str(error).split())[:200]})") from error


def _bounded(text: str) -> None:
    """Check depth, size and aliases on the parser's events, which need no recursion and do not expand aliases."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_FAST_SAFE)):
        if isinstance(event, yaml.AliasEvent):
            raise ReadError(f"uses an alias (*{event.anchor}), which is not read; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None and not re.fullmatch(r"!|tag:yaml\.org,2002:(str|int|float|bool|null|seq|map)", tag):
            raise ReadError(f"is not readable YAML (the tag {tag[:60]} is not allowed)")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > SCALAR:
            raise ReadError(f"holds a value of {len(event.value)} characters without quotes")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH or number > YAML_NODES:
            raise ReadError("is nested too deep" if depth > DEPTH else f"has more than {YAML_NODES} entries")


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        ReadError: a key is repeated.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ReadError(f"names {repeated[:40]!r} twice in one object")
    return found


class _UniqueKeys:
    """Refuse a mapping with a repeated key, as the YAML standard demands but PyYAML does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep)  # type: ignore[misc]
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[attr-defined]
        seen: set[Hashable] = set()
        for key in keys:
            if key in seen:
                raise ReadError(f"names {str(key)[:40]!r} twice in one mapping")
            seen.add(key)
        return found


class _UniqueSafeLoader(_UniqueKeys, _FAST_SAFE):  # type: ignore[misc, valid-type]
    pass


class _AsWrittenSafeLoader(_UniqueKeys, _FAST_BASE):  # type: ignore[misc, valid-type]
    pass


def _by_zeros(data: bytes) -> str | None:
    """Detect UTF-16 without a byte order mark: in Latin text every other byte is zero."""
    head = data[:1000]
    if len(head) < 2 or len(data) % 2:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.4 * len(head) / 2 and even == 0:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * len(head) / 2 and odd == 0 else None


def _known(declared: str | None) -> str | None:
    """The codec name of a plausible declared encoding, else None; UTF-16 and UTF-32 would have been detected before."""
    if not declared or re.sub(r"[-_ ]", "", declared.lower()).startswith(("utf16", "utf32", "ucs")):
        return None
    try:
        found = codecs.lookup(declared)
    except (LookupError, ValueError):
        return None
    return found.name if found._is_text_encoding else None


_WINDOWS = {
    byte: bytes([byte]).decode(FALLBACK) for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
