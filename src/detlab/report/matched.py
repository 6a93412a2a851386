"""Cache of a run's matched detections, in its folder: `.report/matched.npz`.

Matching is most of the work of a first report. It depends on two files only, detections.json and ground_truth.json.
The cache stores their digest and is renewed when they change. A read-only folder works too, without a cache.

A cache holds for these very files, by inode and time of change: one that came with a folder from someone else is
not read.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from detlab.metrics.matching import AREAS
from detlab.report.detections import MOST, Judged, Stored, Truth, candidates, judge_size, judge_voc
from detlab.report.runs import ReportError
from detlab.system.files import write_whole
from detlab.system.reading import ReadError, open_regular

FOLDER = ".report"
MOST_BYTES = 1 << 30  # of a cache's arrays; larger ones are made again
VERSION = "2"  # increase when the matching or the stored arrays change
SHARED = ("image", "label", "score", "place")  # arrays that are equal for all sizes
Arrays = dict[str, np.ndarray]


def digest_of(folder: Path, *also: object) -> str:
    """Hash of a run's two files and of everything else that a cache depends on; "" if a file is missing.

    Raises:
        ReportError: a file is not readable, or no regular file.
    """
    found = hashlib.blake2b(digest_size=16)
    try:
        for name in ("ground_truth.json", "detections.json"):
            with open_regular(folder / name) as file:
                while part := file.read(1 << 20):
                    found.update(part)
                there = os.fstat(file.fileno())
                found.update(repr((there.st_size, there.st_ino, there.st_ctime_ns)).encode())
    except FileNotFoundError:
        return ""
    except (OSError, ReadError) as error:
        raise ReportError(f"{folder / name} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    found.update(repr((VERSION, *also)).encode())
    return found.hexdigest()


def read_copy(folder: Path, name: str, digest: str) -> Arrays | None:
    """Cached arrays of a name; None if there are none with this digest."""
    try:
        with open_regular(folder / FOLDER / f"{name}.npz") as raw, np.load(raw, allow_pickle=False) as file:
            if sum(part.file_size for part in file.zip.infolist()) > MOST_BYTES or str(file["digest"]) != digest:
                return None
            return {key: file[key] for key in file.files if key != "digest"}
    except (OSError, ReadError, KeyError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
        return None


def keep_copy(folder: Path, name: str, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Cache arrays under a name, in an atomic write; a folder that cannot be written, or leads away, is left alone."""
    if (folder / FOLDER).is_symlink():
        return
    out = io.BytesIO()
    np.savez_compressed(out, digest=np.array(digest), **arrays)  # type: ignore[arg-type]
    with suppress(OSError):
        write_whole(folder / FOLDER / f"{name}.npz", out.getvalue())


def match_all(
    truth: Truth, stored: Stored, most: int = MOST, proposals: int = 0, *, voc: bool = False
) -> dict[str, Judged]:
    """Match detections for several metrics: {map, map_small, ..; with proposals ar, ar_small, ..; voc}.

    Args:
        truth: ground truth of the split.
        stored: detections.
        most: detections per image and class that count; 0 leaves out map.
        proposals: boxes per image that count regardless of class; 0 leaves out ar.
        voc: whether to match by VOC's rules too.
    """
    found: dict[str, Judged] = {}
    if most:
        best = candidates(stored, truth, most)
        found |= {f"map{end}": judge_size(best, truth, bounds) for end, bounds in AREAS.items()}
    if proposals:
        best = candidates(stored, truth, proposals, use_classes=False)
        for end, bounds in AREAS.items():
            found[f"ar{end}"] = _hits_alone(replace(judge_size(best, truth, bounds), classes=1))
    if voc:
        found["voc"] = judge_voc(stored, truth)
    return found


def _hits_alone(judged: Judged) -> Judged:
    """Keep only true positives, which are all that recall needs."""
    kept = judged.hit.any(1)
    names = (*SHARED, "hit", "dropped", "truth")
    return replace(judged, **{name: getattr(judged, name)[kept] for name in names})


def as_arrays(found: Mapping[str, Judged]) -> Arrays:
    """Matched detections as arrays of small types, for storage."""
    arrays: Arrays = {}
    for name, judged in found.items():
        group = name.partition("_")[0]
        if name == group or name.startswith("ar"):
            arrays |= {f"{name}/{key}": _small(getattr(judged, key)) for key in SHARED}
        arrays[f"{name}/shape"] = np.array([judged.classes, *judged.hit.shape, len(judged.wanted)])
        arrays |= {f"{name}/{key}": np.packbits(getattr(judged, key)) for key in ("hit", "dropped", "wanted")}
        arrays[f"{name}/truth"] = _small(judged.truth[:, 0] if name == "map" else np.zeros(0, np.int64))
    return arrays


def _small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32) if values.dtype == np.int64 else values


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Judged]:
    """The inverse of `as_arrays`, except that `truth` is kept only for map at the first threshold."""
    found = {}
    for name in [key.removesuffix("/shape") for key in arrays if key.endswith("/shape")]:
        group = name if f"{name}/image" in arrays else name.partition("_")[0]
        classes, count, thresholds, boxes = arrays[f"{name}/shape"].tolist()
        shared = {key: _wide(arrays[f"{group}/{key}"]) for key in SHARED}
        hit, dropped = (_bits(arrays[f"{name}/{key}"], (count, thresholds)) for key in ("hit", "dropped"))
        truth = _wide(arrays[f"{name}/truth"]).reshape(-1, 1)
        wanted = _bits(arrays[f"{name}/wanted"], (boxes,))
        found[name] = Judged(classes, hit=hit, dropped=dropped, truth=truth, wanted=wanted, **shared)
    return found


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64) if values.dtype == np.int32 else values


def _bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
