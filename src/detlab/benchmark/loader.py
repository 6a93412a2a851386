"""target=loader: images per second of decoding, augmentation, resizing and collation, in this process (one core).

Theirs is torchvision's detection reference with v2 transforms: PIL image, random flip, float image in [0, 1], a tuple
of lists; then the resizing and padding inside its detectors (detlab does both before batching).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from detlab.benchmark.measuring import interleave, machine, print_times, ratio, set_up, summarise
from detlab.data.audit import AuditReport
from detlab.data.dataset import Collate, DetectionDataset
from detlab.data.formats.source import SPLITS, Source, Splits
from detlab.data.records import Classes, Record
from detlab.data.transforms import Resize
from detlab.model.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD


class Folder(Source):
    """A data source without annotations; its records come from `write_images`."""

    def read(self, report: AuditReport, wanted: Collection[str] = SPLITS) -> tuple[Classes, Splits]:
        """Return empty classes and splits."""
        return Classes((), ()), {}


def run(
    *,
    images: int = 16,
    width: int = 640,
    height: int = 480,
    boxes: int = 8,
    size: int = 320,
    max_size: int = 533,
    cache: bool = False,
    threads: int | None = 1,
    repeats: int = 7,
    warm_up: int = 1,
    clock: str = "wall",
) -> dict[str, Any]:
    """Seconds per batch of all images, ours / theirs; cache=true caches our resized images, as data.cache=ram does."""
    where = set_up(threads, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(Path(folder), images, (height, width), boxes)
        sides = {
            "ours": our_pipeline(records, size, max_size, cache),
            "theirs": their_pipeline(records, size, max_size),
        }
        times = interleave(sides, repeats=repeats, warm_up=warm_up, device=where, clock=clock)
    facts = {"images": images, "stored": f"{width}x{height}", "size": size, "max_size": max_size, "cache": cache}
    facts |= {"repeats": repeats, "clock": clock, **machine(where)}
    result: dict[str, Any] = {**facts, "times": summarise(times)}
    print_times(facts, result["times"])
    result["images_per_second"] = {k: images / (v["median_ms"] / 1e3) for k, v in result["times"].items()}
    print("images/s  " + "  ".join(f"{k} {v:.0f}" for k, v in result["images_per_second"].items()))
    result["ratio"], low, high = ratio(times)
    result["ratio_range"] = [low, high]
    return result


def write_images(folder: Path, count: int, size: tuple[int, int], boxes: int) -> list[Record]:
    """Write JPEG files that cost a decoder about as much as photographs: smooth, with some noise."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{i}.jpg"
        Image.fromarray(noisy).save(path, quality=90)
        low = rng.random((boxes, 2)) * (size[1] / 2, size[0] / 2)
        high = low + 16 + rng.random((boxes, 2)) * (size[1] / 2 - 16, size[0] / 2 - 16)
        box = np.concatenate([low, high], 1)
        no = np.zeros(boxes, bool)
        labels, area = rng.integers(0, 90, boxes), (high - low).prod(1)
        records.append(
            Record(
                id=i, name=path.name, path=path, size=size, boxes=box, labels=labels, area=area, crowd=no, difficult=no
            )
        )
    return records


def our_pipeline(records: list[Record], size: int, max_size: int, cache: bool) -> Callable[[], Any]:
    """A function that loads all records as one uint8 batch."""
    resize = Resize(mode="short_side", size=size, max_size=max_size)
    data = DetectionDataset(records, Folder(), resize, augment=v2.RandomHorizontalFlip(0.5), cache=cache)
    collate = Collate(divisor=32)
    return lambda: collate([data[i] for i in range(len(records))])


def their_pipeline(records: list[Record], size: int, max_size: int) -> Callable[[], Any]:
    """A function that loads all records as a batch of torchvision's detectors."""
    augment = v2.Compose(
        [v2.PILToTensor(), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float, scale=True), v2.ToPureTensor()]
    )
    batch = GeneralizedRCNNTransform(size, max_size, list(IMAGENET_MEAN), list(IMAGENET_STD))

    def sample(record: Record) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert record.path is not None  # set by `write_images`
        image = Image.open(record.path).convert("RGB")
        boxes = tv_tensors.BoundingBoxes(
            torch.as_tensor(record.boxes, dtype=torch.float32), format="XYXY", canvas_size=record.size
        )
        return augment(image, {"boxes": boxes, "labels": torch.as_tensor(record.labels)})

    def pipeline() -> Any:
        images, targets = zip(*(sample(r) for r in records), strict=True)
        return batch(list(images), list(targets))

    return pipeline
