"""The header of a plain JPEG, read in a tenth of Pillow's time; whatever is not plain is left to Pillow.

Plain: RGB or grey of 8 bits, no EXIF, no other application data than JFIF's and Adobe's, and the header whole within
the first bytes. (ITU T.81, annex B: segments are FF, marker, two bytes of length and the content.)
"""

from __future__ import annotations

import os
import stat

from detlab.data.images import ImageFacts

HEAD = 4096  # bytes that are read
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe does not keep us waiting
MODES = {1: "L", 3: "RGB"}  # by channels
FRAMES = {0xC0, 0xC1, 0xC2}  # start of frame: baseline, extended, progressive
TABLES = {0xC4, 0xDD, 0xE0, 0xEE, 0xFE}  # Huffman, restarts, JFIF, Adobe, comment
QUANTISERS, SCAN = 0xDB, 0xDA
LEAST = {0xE0: 14, 0xEE: 12}  # bytes of JFIF's and Adobe's data


def plain_jpeg_facts(path: str, max_pixels: int) -> ImageFacts | None:
    """Facts of a plain JPEG of at most max_pixels; None for any other file, also a damaged or missing one."""
    try:
        handle = os.open(path, FLAGS)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        head = os.read(handle, HEAD)
    except OSError:
        return None
    finally:
        os.close(handle)
    if head[:3] != b"\xff\xd8\xff":
        return None
    found, at = None, 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        end = at + 2 + length
        if length < 2 or end > len(head):
            return None
        if marker == SCAN:
            return found
        content = head[at + 4 : end]
        if len(content) < LEAST.get(marker, 0):
            return None
        if marker in FRAMES and found is None:
            found = _frame(content, max_pixels)
            if found is None:
                return None
        elif marker == QUANTISERS:
            if len(content) % 65 or max(content[::65], default=0) > 3:
                return None
        elif marker not in TABLES:
            return None
        at = end
    return None


def _frame(content: bytes, max_pixels: int) -> ImageFacts | None:
    if len(content) < 6 or content[0] != 8 or len(content) != 6 + 3 * content[5]:
        return None
    size = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    mode = MODES.get(content[5])
    if mode is None or not 0 < size[0] * size[1] <= max_pixels:
        return None
    return ImageFacts(size, size, mode, False)
