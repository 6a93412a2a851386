"""The rows of large COCO files, kept as arrays, so that a second start does not parse them again.

An entry belongs to a path, and holds the size and the modification time of the file that it was made of.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detlab.data.file_checks import digest
from detlab.data.formats.coco_rows import Boxes, Rows, read_rows
from detlab.system.files import write_whole

VERSION = 1  # of the entries
LEAST = 1_000_000  # bytes of a json file that is kept; smaller ones are read at once
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
COLUMNS = tuple(Boxes.__dataclass_fields__)


def kept_rows(path: Path, name: str, folder: Path | None) -> Rows | None:
    """The rows of a file, see `read_rows`; they are taken from the cache in `folder`, or put there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if folder is None or found.st_size < LEAST:
        return read_rows(path, name)
    entry = folder / f"coco-{VERSION}-{digest(str(path.resolve())).hex()}.npz"
    made_of = [found.st_size, found.st_mtime_ns]
    with suppress(*DAMAGED):
        return _loaded(entry, made_of)
    rows = read_rows(path, name)
    if rows is not None:
        with suppress(OSError):  # without the cache, the next start only takes longer
            write_whole(entry, _packed(rows, made_of))
    return rows


def _packed(rows: Rows, made_of: list[int]) -> bytes:
    columns = {name: getattr(rows.boxes, name) for name in COLUMNS}
    others = {"images": rows.images, "categories": rows.categories, "odd": list(rows.odd.items())}
    arrays: dict[str, Any] = {k: np.frombuffer(json.dumps(value).encode(), np.uint8) for k, value in others.items()}
    arrays |= {f"box_{name}": column for name, column in columns.items()}
    file = io.BytesIO()
    np.savez(file, made_of=np.array(made_of, np.int64), **arrays)
    return file.getvalue()


def _loaded(entry: Path, made_of: list[int]) -> Rows:
    """An entry's rows.

    Raises:
        ValueError: it was made of another version of the file; or one of DAMAGED.
    """
    with np.load(entry, allow_pickle=False) as stored:
        if stored["made_of"].tolist() != made_of:
            raise ValueError("made of another file")
        texts: dict[str, Any] = {k: json.loads(stored[k].tobytes()) for k in ("images", "categories", "odd")}
        boxes = Boxes(**{name: stored[f"box_{name}"] for name in COLUMNS})
    if len({len(getattr(boxes, name)) for name in COLUMNS}) != 1:
        raise ValueError("columns of different lengths")
    return Rows(texts["images"], texts["categories"], boxes, dict(texts["odd"]))
