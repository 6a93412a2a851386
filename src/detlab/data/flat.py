"""A split as flat arrays. Loader workers share its memory: reading an array changes no reference counts, as reading
Python objects does, so no page of it is copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np

from detlab.data.records import Record

BOX_FIELDS = ("boxes", "labels", "area", "crowd", "difficult")
LABEL = np.int32  # of stored labels; a record's are int64


@dataclass(frozen=True, eq=False)
class Texts:
    """Strings one after the other: bytes in UTF-8, and where each begins."""

    data: np.ndarray  # [sum of lengths] uint8
    starts: np.ndarray  # [N + 1] int64

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Store strings; lone surrogates, as in names of files in no encoding, are kept."""
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        return cls(np.frombuffer(b"".join(parts), np.uint8), starts_of(list(map(len, parts))))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> str:
        return self.data[self.starts[row] : self.starts[row + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        whole, starts = self.data.tobytes(), self.starts.tolist()
        return (whole[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(starts))

    def take(self, rows: np.ndarray) -> Texts:
        """The strings of these rows."""
        places, starts = spans(self.starts, rows)
        return Texts(self.data[places], starts)


@dataclass(frozen=True, eq=False)
class Records(Sequence[Record]):
    """N images with G boxes; rows are made into a `Record` when they are read."""

    ids: np.ndarray  # [N] int64
    names: Texts
    folders: tuple[str, ...]
    folder: np.ndarray  # [N] int32, row of `folders`; -1 for generated images
    files: Texts  # names within their folder
    sizes: np.ndarray  # [N, 2] int64, or int32 once checked (height, width)
    rotate: np.ndarray  # [N] bool
    starts: np.ndarray  # [N + 1] int64, rows of the boxes
    boxes: np.ndarray  # [G, 4] float64
    labels: np.ndarray  # [G] int32
    area: np.ndarray  # [G] float64
    crowd: np.ndarray  # [G] bool
    difficult: np.ndarray  # [G] bool

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Flat arrays of any records."""
        if isinstance(records, Records):
            return records
        folders: dict[str, int] = {}
        paths = [item.path for item in records]
        folder = [-1 if p is None else folders.setdefault(str(p.parent).rstrip("/"), len(folders)) for p in paths]
        names = Texts.of(item.name for item in records)
        boxes = {field: [getattr(item, field) for item in records] for field in BOX_FIELDS}
        return cls(
            ids=np.array([item.id for item in records], np.int64),
            names=names,
            folders=tuple(folders),
            folder=np.array(folder, np.int32),
            files=Texts.of("" if p is None else p.name for p in paths),
            sizes=np.array([item.size for item in records], np.int64).reshape(-1, 2),
            rotate=np.array([item.rotate for item in records], bool),
            starts=starts_of([len(item.labels) for item in records]),
            boxes=np.concatenate([*boxes["boxes"], np.zeros((0, 4))]),
            labels=np.concatenate([*boxes["labels"], np.zeros(0, LABEL)]).astype(LABEL),
            area=np.concatenate([*boxes["area"], np.zeros(0)]),
            crowd=np.concatenate([*boxes["crowd"], np.zeros(0, bool)]),
            difficult=np.concatenate([*boxes["difficult"], np.zeros(0, bool)]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> Records: ...
    def __getitem__(self, row: int | slice) -> Record | Records:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        path = self.path(row)
        height, width = self.sizes[row].tolist()
        span = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return Record(
            id=int(self.ids[row]),
            name=self.names[row],
            path=None if path is None else Path(path),
            size=(height, width),
            boxes=self.boxes[span],
            labels=self.labels[span].astype(np.int64),
            area=self.area[span],
            crowd=self.crowd[span],
            difficult=self.difficult[span],
            rotate=bool(self.rotate[row]),
        )

    def path(self, row: int) -> str | None:
        """The path of an image; None for a generated one."""
        at = int(self.folder[row])
        return None if at < 0 else f"{self.folders[at]}/{self.files[row]}"

    def paths(self) -> list[str | None]:
        """The path of every image."""
        places = zip(self.folder.tolist(), self.files, strict=True)
        return [None if at < 0 else f"{self.folders[at]}/{file}" for at, file in places]

    @property
    def counts(self) -> np.ndarray:
        """[N] boxes of each image."""
        return np.diff(self.starts)

    @property
    def box_rows(self) -> np.ndarray:
        """[G] row of the image of each box."""
        return np.repeat(np.arange(len(self)), self.counts)

    def shapes(self) -> list[tuple[int, int]]:
        """The different (height, width) of the images, each once, in the order in which they occur."""
        _, first = np.unique(self.sizes.astype(np.int64) @ np.array([2**32, 1]), return_index=True)
        return [(height, width) for height, width in self.sizes[np.sort(first)].tolist()]

    def take(self, rows: np.ndarray) -> Records:
        """These images, in this order."""
        rows = np.asarray(rows, np.int64)
        if len(rows) == len(self) and (rows == np.arange(len(rows))).all():
            return self
        places, starts = spans(self.starts, rows)
        names = self.names.take(rows)
        return replace(
            self,
            names=names,
            files=names if self.files is self.names else self.files.take(rows),
            starts=starts,
            **{name: getattr(self, name)[rows] for name in ("ids", "folder", "sizes", "rotate")},
            **{name: getattr(self, name)[places] for name in BOX_FIELDS},
        )

    def keep_boxes(self, kept: np.ndarray) -> Records:
        """All images, with only the boxes where `kept` [G] is true."""
        if kept.all():
            return self
        counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[self.starts])
        return replace(self, starts=starts_of(counts), **{name: getattr(self, name)[kept] for name in BOX_FIELDS})


def starts_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """[N + 1] where each of N parts of these lengths begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def spans(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of the parts of these rows one after the other, and where each begins there."""
    counts = np.diff(starts)[rows]
    begins = starts_of(counts)
    return np.repeat(starts[rows] - begins[:-1], counts) + np.arange(begins[-1]), begins
