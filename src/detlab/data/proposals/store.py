"""Proposals that a detector reads: a grid computed per image, or files written by `detlab proposals`.

A file holds one split. It is an .npz without pickled objects, with the arrays
    format []         FORMAT
    method []         how the boxes were made
    fingerprint []    of the split's images, see `fingerprint`
    ids [N] int64, names [N], sizes [N, 2] int64 (height, width), counts [N] int64
    boxes [P, 4] float32 xyxy, px of the images as stored; image after image, by falling score
    scores [P] float32, at least 0
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detlab.data.records import Record
from detlab.errors import DataError

FORMAT = "detlab proposals 1"
SLACK = 1.0  # px that a box may lie across the border; beyond it the file is taken for another data set's
AGAIN = "write it again with detlab proposals, or use data.proposals=grid"

GRID_SIDES = (0.8, 0.5, 0.3, 0.2, 0.12)  # of square boxes, as shares of the image's shorter side
GRID_RATIOS = (0.5, 1.0, 2.0)  # height / width
GOLDEN = 0.6180339887498949  # 1 / golden ratio: multiples of it modulo 1 are spread evenly

Boxes = tuple[np.ndarray, np.ndarray]  # [n, 4] float32 xyxy in px of the image as stored, [n] float32 scores


class ProposalFile(NamedTuple):
    """The P proposals of N images."""

    method: str
    fingerprint: str
    ids: np.ndarray  # [N] int64
    names: np.ndarray  # [N] str
    sizes: np.ndarray  # [N, 2] int64 (height, width)
    counts: np.ndarray  # [N] int64
    boxes: np.ndarray  # [P, 4] float32 xyxy
    scores: np.ndarray  # [P] float32

    @property
    def starts(self) -> np.ndarray:
        """[N + 1]: index of each image's first row, and the number of rows."""
        return np.concatenate([[0], self.counts.cumsum()])


class GridProposals:
    """A multi-scale grid per image, without a file ("dense boxes", Fast R-CNN section 5.4)."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, item: Record) -> Boxes:
        """About `count` boxes of a record."""
        return grid_proposals(item.size, self.count)


class StoredProposals:
    """The proposals of files, by image.

    Args:
        files: proposal files that have been read.
        count: most proposals per image, those of the highest score; null for all.
    """

    def __init__(self, files: Sequence[ProposalFile], count: int | None = None) -> None:
        self.files, self.count = list(files), count
        self._place = {
            (int(id), str(name)): (number, row)
            for number, file in enumerate(self.files)
            for row, (id, name) in enumerate(zip(file.ids, file.names, strict=True))
        }
        self._starts = [file.starts for file in self.files]

    def __call__(self, item: Record) -> Boxes:
        """Boxes and scores of a record, by falling score."""
        number, row = self._place[item.id, item.name]
        start, end = self._starts[number][row : row + 2]
        file = self.files[number]
        order = np.argsort(-file.scores[start:end], kind="stable")[: self.count]
        return file.boxes[start:end][order], file.scores[start:end][order]

    def check(self, records: Sequence[Record], split: str, source: str) -> None:
        """Check that the files were made for these records.

        Raises:
            DataError: the files lack an image, or have another size for it.
        """
        if fingerprint(records) in {file.fingerprint for file in self.files}:
            return
        known = {id for id, _ in self._place}
        for item in records:
            place = self._place.get((item.id, item.name))
            if place is None and item.id in known:
                raise DataError(
                    f"data.proposals={source} was made for another data set: image id {item.id} is not {item.name} "
                    f"there; {AGAIN}."
                )
            if place is None:
                raise DataError(
                    f"data.proposals={source} lacks image {item.name} (id {item.id}) of the {split} split; {AGAIN}."
                )
            size = tuple(int(v) for v in self.files[place[0]].sizes[place[1]])
            if size != tuple(item.size):
                raise DataError(
                    f"data.proposals={source} was made for another data set: {item.name} is {size[1]}x{size[0]} px "
                    f"there and {item.size[1]}x{item.size[0]} here; {AGAIN}."
                )


def open_proposals(source: str, count: int | None) -> StoredProposals:
    """A proposal file, or all files of a folder.

    Raises:
        DataError: there is no such file, or a file is damaged, of another kind, or has boxes outside its images.
    """
    path = Path(source).expanduser()
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise DataError(
            f"data.proposals={source} is neither grid nor a file or folder written by detlab proposals; use "
            f"data.proposals=grid, or write one."
        )
    return StoredProposals([read_proposals(file) for file in files], count)


def read_proposals(path: Path) -> ProposalFile:
    """Read and check one file.

    Raises:
        DataError: the file is damaged, of another kind, or has boxes outside its images.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except Exception as error:  # zip, numpy and the file system each raise their own kinds
        raise DataError(
            f"data.proposals: {path} is not a proposal file, or is truncated ({type(error).__name__}); {AGAIN}."
        ) from error
    missing = [name for name in ("format", *ProposalFile._fields) if name not in arrays]
    if missing or str(arrays["format"]) != FORMAT:
        raise DataError(f"data.proposals: {path} is not a file of detlab proposals; {AGAIN}.")
    rows = (arrays[name] for name in ProposalFile._fields[2:])
    file = ProposalFile(str(arrays["method"]), str(arrays["fingerprint"]), *rows)
    _check_shapes(file, path)
    _check_boxes(file, path)
    return file


def write_proposals(path: Path, file: ProposalFile) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as stream:
        arrays: dict[str, Any] = {k: np.asarray(v) for k, v in file._asdict().items()}
        np.savez(stream, format=np.array(FORMAT), **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def proposal_file(method: str, records: Sequence[Record], found: Sequence[Boxes]) -> ProposalFile:
    """Boxes of records as a file; each image's rows are sorted by falling score."""
    ordered = []
    for boxes, scores in found:
        order = np.argsort(-np.asarray(scores), kind="stable")
        ordered.append((np.asarray(boxes, np.float32).reshape(-1, 4)[order], np.asarray(scores, np.float32)[order]))
    return ProposalFile(
        method=method,
        fingerprint=fingerprint(records),
        ids=np.array([r.id for r in records], np.int64),
        names=np.array([r.name for r in records], np.str_),
        sizes=np.array([r.size for r in records], np.int64).reshape(-1, 2),
        counts=np.array([len(scores) for _, scores in ordered], np.int64),
        boxes=np.concatenate([boxes for boxes, _ in ordered] or [np.zeros((0, 4), np.float32)]),
        scores=np.concatenate([scores for _, scores in ordered] or [np.zeros(0, np.float32)]),
    )


def fingerprint(records: Sequence[Record]) -> str:
    """Hash, sixteen hex digits, of a split's images: ids, names and sizes, in order."""
    lines = "\n".join(f"{r.id}\t{r.name}\t{r.size[0]}x{r.size[1]}" for r in records)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def grid_proposals(size: tuple[int, int], count: int) -> Boxes:
    """About `count` boxes, never more, on a multi-scale sliding grid over an image of (height, width), always the same.

    A box slides in steps of a share of its own width and height; the share is the same for all sides and ratios and is
    chosen to give the count. Scores are spread evenly over the image, so that the best k boxes are a thinner grid.
    """
    height, width = size
    sides = np.array([share * min(size) for share in GRID_SIDES])
    root = np.sqrt(np.array(GRID_RATIOS))
    w = np.minimum(np.outer(1 / root, sides).ravel(), width)
    h = np.minimum(np.outer(root, sides).ravel(), height)
    low, high = 0.01, 16.0  # bounds of the step, as a share of a box's side
    for _ in range(30):
        share = np.sqrt(low * high)
        columns, rows = _steps(width, w, share), _steps(height, h, share)
        low, high = (share, high) if (columns * rows).sum() > count else (low, share)
    columns, rows = _steps(width, w, high), _steps(height, h, high)
    boxes = np.concatenate([_slide(size, *shape) for shape in zip(w, h, columns, rows, strict=True)])
    scores = 1 - np.arange(1, len(boxes) + 1) * GOLDEN % 1
    order = np.argsort(-scores, kind="stable")[:count]  # one box of each shape may be more than `count`
    return boxes[order].astype(np.float32), scores[order].astype(np.float32)


def _steps(length: int, sides: np.ndarray, share: float) -> np.ndarray:
    """Number of positions along an axis of `length` px for boxes of these sides."""
    return np.round((length - sides) / (share * sides)).astype(int) + 1


def _slide(size: tuple[int, int], w: float, h: float, columns: int, rows: int) -> np.ndarray:
    """Boxes [columns * rows, 4] of one shape, evenly from border to border; a single one is centred."""
    height, width = size
    x = np.linspace(0, width - w, columns) if columns > 1 else np.array([(width - w) / 2])
    y = np.linspace(0, height - h, rows) if rows > 1 else np.array([(height - h) / 2])
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return np.stack([xx, yy, xx + w, yy + h], axis=-1).reshape(-1, 4)


def _check_shapes(file: ProposalFile, path: Path) -> None:
    images, rows = len(file.ids), len(file.scores)
    whole = (
        file.names.shape == file.counts.shape == (images,)
        and file.sizes.shape == (images, 2)
        and file.boxes.shape == (rows, 4)
        and int(file.counts.sum()) == rows
        and (file.counts >= 0).all()
    )
    if not whole:
        raise DataError(f"data.proposals: {path} is damaged, its arrays do not fit one another; {AGAIN}.")


def _check_boxes(file: ProposalFile, path: Path) -> None:
    limit = np.repeat(file.sizes[:, ::-1], file.counts, axis=0).astype(np.float32)  # (width, height)
    low, high = file.boxes[:, :2], file.boxes[:, 2:]
    good = (low >= -SLACK).all(1) & (high <= limit + SLACK).all(1) & (low < high).all(1) & (file.scores >= 0)
    if not good.all():  # comparisons with NaN are false, so NaN is not good either
        row = int(np.argmin(good))
        image = int(np.searchsorted(file.starts, row, side="right")) - 1
        box = [round(float(v), 1) for v in file.boxes[row]]
        raise DataError(
            f"data.proposals: {path} holds {box}, score {float(file.scores[row]):.3g}, for {file.names[image]} of "
            f"{file.sizes[image][1]}x{file.sizes[image][0]} px, which is no box of it; {AGAIN}."
        )


def proposal_notes(proposals: str | None, count: int, needed: bool) -> list[str]:
    """Notes for the user, before work starts, about the choice of proposals."""
    if proposals is not None or not needed:
        return []
    return [
        f"This family reads proposals and data.proposals is null: a grid of about {count} boxes is made per image; "
        f"detlab proposals writes better ones for data.proposals=PATH, and data.proposals=grid silences this."
    ]


def proposals_of(
    splits: Mapping[str, Sequence[Record]], source: str | None, count: int
) -> Callable[[Record], Boxes] | None:
    """A function that gives each image's proposals; files are checked against every split.

    Args:
        source: grid, a file or folder of `detlab proposals`, or None for none.
        count: most proposals of an image.
    """
    if source is None:
        return None
    if source == "grid":
        return GridProposals(count)
    stored = open_proposals(source, count)
    for split, records in splits.items():
        stored.check(records, split, source)
    return stored
