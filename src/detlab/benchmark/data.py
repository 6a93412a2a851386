"""target=data: opening a large data set, reading, augmenting and collating its images, and the memory of workers.

The data set is synthetic, in COCO's layout and of any size (see `detlab.benchmark.synthetic`). Times are CPU seconds of
one process, since these hardly change with other load on the machine. There is no other side: the figures are compared
with those of another version of this package, run on the same machine.
"""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from detlab.benchmark.loader import Folder
from detlab.benchmark.measuring import machine, set_up
from detlab.benchmark.options import OptionError
from detlab.benchmark.synthetic import write_coco
from detlab.data.datamodule import DetectionData
from detlab.data.dataset import Collate, DetectionDataset
from detlab.data.formats.coco import coco
from detlab.data.records import Record
from detlab.data.ssd_transforms import IoUCropOrNot, PhotometricDistort, ZoomOut
from detlab.data.transforms import Resize
from detlab.system.workers import spawned_workers

MB = 1e6
SIDE = 32  # px of the images that workers give while their memory is watched
WATCHED_BATCH = 64


def run(
    *,
    images: int = 5000,
    boxes: int = 7,
    points: int = 50,
    classes: int = 80,
    width: int = 640,
    height: int = 480,
    size: int = 800,
    max_size: int = 1333,
    ssd_size: int = 300,
    batch: int = 8,
    workers: int = 2,
    check: str = "header",
    files: int = 32,
    repeats: int = 5,
) -> dict[str, Any]:
    """CPU time and memory of opening, reading, augmenting and collating, and the growth of workers over an epoch.

    Args:
        images, boxes, points, classes: of the data set, see `write_coco`.
        width, height: px of the stored JPEG files.
        size, max_size: short side and limit of the long side to which images are resized.
        ssd_size: px of the square to which SSD's augmented images are resized.
        batch: images that are collated.
        workers: processes whose memory is watched over an epoch; 0 for none.
        check: header or full, the check of files when the data set is opened.
        files: different JPEG files that are read.
        repeats: rounds of reading, augmenting and collating.
    """
    if check not in ("header", "full"):
        raise OptionError(f"check={check} is not known; use one of header, full.")
    where = set_up(1, "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        options = {"images": images, "boxes": boxes, "points": points, "classes": classes, "files": files}
        write_coco(folder / "data", **options, size=(height, width))
        facts = {**options, "stored": f"{width}x{height}", "size": size, "check": check, **machine(where)}
        print("  ".join(f"{k} {v}" for k, v in facts.items()))
        starts = [_in_new_process(_opened, folder, check, 0), _in_new_process(_opened, folder, check, workers)]
        for title, found in zip(("first start", "second start"), starts, strict=True):
            print(
                f"{title:22} {found['cpu_s']:8.2f} CPU s   {found['peak_mb']:7.0f} MB more at the peak   "
                f"{found['held_bytes'] / max(1, images):6.0f} bytes held an image"
            )
        for number, (before, after) in enumerate(starts[1]["workers"]):
            print(f"worker {number:<15} {before:8.1f} MB of its own   {after:7.1f} MB after an epoch")
        records = _data(folder, check).records("train")[:files]
        times = _times(records, size, max_size, ssd_size, batch, repeats)
    return {**facts, "starts": starts, "milliseconds": times}


def _in_new_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own, whose memory therefore holds nothing else."""
    with spawned_workers(1) as pool:
        return pool.submit(call, *arguments).result()


def _data(folder: Path, check: str) -> DetectionData:
    auto = dict.fromkeys(("train", "val", "test"), "auto")
    root, cache = str(folder / "data"), str(folder / "cache")
    data = coco(root=root, annotations=auto, images=auto, check_images=check, cache_dir=cache)
    data.required = ("train",)
    return data


def _opened(folder: Path, check: str, workers: int) -> dict[str, Any]:
    """Open the data set: CPU seconds, peak memory, memory held, and that of workers before and after an epoch."""
    set_up(1, "cpu")
    _data(folder, check)  # imports what the first data set imports
    start, before = time.process_time(), _status("VmRSS")
    data = _data(folder, check)
    data.setup()
    seconds, peak = time.process_time() - start, _status("VmHWM")
    _trim()
    found = {"cpu_s": seconds, "peak_mb": (peak - before) / MB, "held_bytes": _status("VmRSS") - before, "workers": []}
    return found | {"workers": _watched(data, workers) if workers else []}


class Blank(Folder):
    """Gives the same small image for every record, so that only the annotations are read."""

    def image(self, item: Record) -> Tensor:
        """uint8 [3, SIDE, SIDE]."""
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)


def _watched(data: DetectionData, workers: int) -> list[tuple[float, float]]:
    """MB of each worker that it shares with no process, at its first and after its last batch of an epoch."""
    gc.collect()
    dataset = DetectionDataset(data.records("train"), Blank(), Resize(mode="warp", size=SIDE))
    options: Any = {"batch_size": WATCHED_BATCH, "shuffle": True, "collate_fn": Collate(canvas=(SIDE, SIDE))}
    # A process that was spawned spawns its own; training forks its workers where the system can.
    start = "fork" if "fork" in get_all_start_methods() else None
    loader = DataLoader(dataset, **options, num_workers=workers, persistent_workers=True, multiprocessing_context=start)
    batches = cast("Any", iter(loader))
    next(batches)
    before = [_private(worker.pid) for worker in batches._workers]
    for _ in batches:
        pass
    return list(zip(before, [_private(worker.pid) for worker in batches._workers], strict=True))


def _times(
    records: Any, size: int, max_size: int, ssd_size: int, batch: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Milliseconds an image, in CPU time: median and range over the rounds."""
    reading = DetectionDataset(records, Folder(), Resize(mode="short_side", size=size, max_size=max_size))
    augment = v2.Compose(_ssd())
    augmented = DetectionDataset(records, Folder(), Resize(mode="warp", size=ssd_size), augment=augment)
    source, collate, count = Folder(), Collate(), min(batch, len(records))
    samples = [reading[i] for i in range(count)]
    steps: Mapping[str, tuple[int, Callable[[], Any]]] = {
        "read": (len(records), lambda: [source.image(item) for item in records]),
        "read, resize": (len(records), lambda: [reading[i] for i in range(len(records))]),
        "read, SSD's augment": (len(records), lambda: [augmented[i] for i in range(len(records))]),
        "collate": (count, lambda: collate(samples)),
    }
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        augmented.set_epoch(turn)
        for name, (number, call) in steps.items():
            start = time.process_time()
            call()
            if turn:  # the first round warms up
                spent[name].append(1e3 * (time.process_time() - start) / number)
    found = {n: {"median_ms": statistics.median(v), "min_ms": min(v), "max_ms": max(v)} for n, v in spent.items()}
    for name, row in found.items():
        print(
            f"{name:22} {row['median_ms']:8.2f} ms an image   {row['min_ms']:.2f} to {row['max_ms']:.2f}   "
            f"{1e3 / row['median_ms']:.0f} images/s"
        )
    return found


def _ssd() -> list[Any]:
    """The transforms of conf/augment/ssd.yaml."""
    return [
        PhotometricDistort(p=0.5),
        ZoomOut(fill=[124, 116, 104], side_range=(1.0, 4.0), p=0.5),
        IoUCropOrNot(trials=50),
        v2.RandomHorizontalFlip(0.5),
    ]


def _trim() -> None:
    """Give freed memory back to the system, so that only what is held counts."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(key: str) -> float:
    """Bytes of a line of /proc/self/status; 0 on systems without it."""
    return _bytes(Path("/proc/self/status"), key)


def _private(pid: int) -> float:
    """MB of memory that a process shares with no other; 0 on systems without /proc."""
    file = Path(f"/proc/{pid}/smaps_rollup")
    return (_bytes(file, "Private_Dirty") + _bytes(file, "Private_Clean")) / MB


def _bytes(file: Path, key: str) -> float:
    with suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024.0 if found else 0.0
    return 0.0
