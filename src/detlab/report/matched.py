"""What matching made of a run's stored detections, kept beside the run: `.report/matched.npz`.

Matching is most of the work of a first report and depends on two files alone, detections.json and ground_truth.json.
The copy bears their digest; where they change, it is made anew. A folder that cannot be written is read all the same.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from detlab.metrics.matching import AREAS
from detlab.report.detections import MOST, Judged, Stored, Truth, candidates, judge_size, judge_voc
from detlab.system.files import write_whole

FOLDER = ".report"
VERSION = "1"  # raised when matching, or what is kept of it, changes
SHARED = ("image", "label", "score", "place")  # the same for all sizes
Arrays = dict[str, np.ndarray]


def digest_of(folder: Path, *also: object) -> str:
    """Of a run's two files, and of whatever else a copy depends on; "" where one is missing."""
    found = hashlib.blake2b(digest_size=16)
    try:
        for name in ("ground_truth.json", "detections.json"):
            with (folder / name).open("rb") as file:
                found.update(hashlib.file_digest(file, "blake2b").digest())
    except OSError:
        return ""
    found.update(repr((VERSION, *also)).encode())
    return found.hexdigest()


def read_copy(folder: Path, name: str, digest: str) -> Arrays | None:
    """Arrays kept under a name; None where there are none of this digest."""
    try:
        with np.load(folder / FOLDER / f"{name}.npz", allow_pickle=False) as file:
            if str(file["digest"]) != digest:
                return None
            return {key: file[key] for key in file.files if key != "digest"}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def keep_copy(folder: Path, name: str, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under a name, whole or not at all."""
    out = io.BytesIO()
    np.savez_compressed(out, digest=np.array(digest), **arrays)  # type: ignore[arg-type]
    with suppress(OSError):
        write_whole(folder / FOLDER / f"{name}.npz", out.getvalue())


def match_all(
    truth: Truth, stored: Stored, most: int = MOST, proposals: int = 0, *, voc: bool = False
) -> dict[str, Judged]:
    """Verdicts by name: map, map_small ..; with proposals ar, ar_small ..; voc.

    Args:
        truth: of the split.
        stored: detections.
        most: detections per image and class that count; 0 leaves map out.
        proposals: boxes per image that count without classes; 0 leaves ar out.
        voc: whether VOC's verdicts are wanted.
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
    """Without the detections that hit nothing, which recall does not ask for."""
    kept = judged.hit.any(1)
    names = (*SHARED, "hit", "dropped", "truth")
    return replace(judged, **{name: getattr(judged, name)[kept] for name in names})


def as_arrays(found: Mapping[str, Judged]) -> Arrays:
    """Verdicts, small."""
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
    """What `as_arrays` kept: but of `truth` the first threshold of map alone."""
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
