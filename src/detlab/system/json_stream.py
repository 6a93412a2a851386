"""Read a large JSON object piece by piece: the rows of its long lists are handed over in blocks and forgotten."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from detlab.system.reading import ReadError, open_regular, without_repeats

BLOCK = 1 << 22  # bytes read at once
ROWS = 20_000  # rows handed over at once, or a few more
BLANKS = re.compile(r"[ \t\n\r]*")
COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


class NotStreamedError(ValueError):
    """The file is no plain JSON object in UTF-8; `load_json` says what is wrong with it, or reads it."""


def stream_object(path: Path, lists: Collection[str], advance: Callable[[int], None]) -> Iterator[tuple[str, Any]]:
    """(key, value) of a file's object; a list under a key of `lists` comes as (key, rows) many times, at least once.

    Args:
        advance: called with the number of bytes that were read.

    Raises:
        NotStreamedError: see there; some pairs may have been given before.
    """
    try:
        with open_regular(path) as file:
            yield from _Stream(file.read, advance).pairs(lists)
    except (OSError, ReadError, ValueError, RecursionError) as error:
        raise NotStreamedError(str(error)) from error


class _Stream:
    """The text of a file from `at` on, as far as it was read."""

    def __init__(self, read: Callable[[int], bytes], advance: Callable[[int], None]) -> None:
        self.read, self.advance = read, advance
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.scan = json.JSONDecoder(object_pairs_hook=without_repeats).raw_decode
        self.text, self.at = "", 0
        self.fresh = True  # whether `several` may try the text

    def pairs(self, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
        """The pairs of the object; see `stream_object`."""
        seen: set[str] = set()
        self.expect("{")
        while True:
            key = self.value()
            if not isinstance(key, str) or key in seen:
                raise NotStreamedError("a key is no text, or is repeated")
            seen.add(key)
            self.expect(":")
            if key in lists and self.next() == "[":
                yield from ((key, rows) for rows in self.blocks())
            else:
                yield key, self.value()
            if self.next() == "}":
                break
            self.expect(",")
        self.at += 1
        if self.next(at_end=True):
            raise NotStreamedError("text follows the object")

    def blocks(self) -> Iterator[list[Any]]:
        """The rows of a list."""
        self.expect("[")
        rows: list[Any] = []
        self.fresh = True
        if self.next() != "]":
            while True:
                rows += self.several() or [self.value()]
                comma = COMMA.match(self.text, self.at)
                if comma is not None and comma.end() < len(self.text):
                    self.at = comma.end()
                elif self.next() == ",":
                    self.at += 1
                else:
                    break
                if len(rows) >= ROWS:
                    yield rows
                    rows = []
        self.expect("]")
        yield rows

    def several(self) -> list[Any]:
        """The next objects of a list as far as the text goes, read at once, in two thirds of the time; [] if unsure.

        The last `}, {` is taken for the end of an object. If it lies within one, the part is no list, and values are
        read one by one until there is more text.
        """
        end, self.fresh = len(self.text) if self.fresh else 0, False
        while (end := self.text.rfind("}", self.at, end)) > 0:
            comma = COMMA.match(self.text, end + 1)
            if comma is not None and self.text[comma.end() : comma.end() + 1] == "{":
                break
        else:
            return []
        part = f"[{self.text[self.at : end + 1]}]"
        try:
            rows, read = self.scan(part)
        except json.JSONDecodeError:
            return []
        # The part's first bracket is not in the text; its last one is, if the list ends before `end`.
        self.text, self.at = self.text[self.at + read - 2 :], 0  # an error in a long text takes long to be made
        return list(rows)

    def value(self) -> Any:
        """The next value."""
        self.next()
        size = BLOCK
        while True:
            try:
                found, end = self.scan(self.text, self.at)
            except json.JSONDecodeError:
                end = len(self.text)
            else:
                if end < len(self.text):
                    self.at = end
                    return found
            if not self.more(size):
                raise NotStreamedError("the file ends within a value")
            size *= 2  # a long value is not begun again for each block

    def next(self, *, at_end: bool = False) -> str:
        """The next character that is no blank; it stays the next."""
        while True:
            self.at = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches anything
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more(BLOCK):
                if at_end:
                    return ""
                raise NotStreamedError("the file ends early")

    def expect(self, character: str) -> None:
        """Pass a character."""
        if self.next() != character:
            raise NotStreamedError(f"no {character} where one belongs")
        self.at += 1

    def more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        data = self.read(size)
        self.advance(len(data))
        self.text, self.at = self.text[self.at :] + self.decoder.decode(data, final=not data), 0
        self.fresh = True
        return bool(data)
