"""Run a detector over images once and cache its outputs, one set of files per image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning as L  # noqa: N812 - Lightning's own convention
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from detlab.data.dataset import Collate, DetectionDataset, Sample
from detlab.data.loader import Loader
from detlab.data.sampling import ShardedBatchSampler
from detlab.detectors import Detector
from detlab.runs.first_process import first_process
from detlab.tensors.ranks import meet
from detlab.tensors.structures import Batch

Arrays = dict[str, np.ndarray]


class ImageCache:
    """A folder with arrays by image id: ID.NAME.npy.

    Args:
        folder: created with the first array.
        names: names of the arrays, in the order of writing; an image is complete when the last one exists.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self.names = folder, tuple(names)

    def has(self, id: int) -> bool:
        """Whether all arrays of an image are stored."""
        return self._file(id, self.names[-1]).is_file()

    def keep(self, id: int, arrays: Arrays) -> None:
        """Write an image's arrays, each file atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            file = self._file(id, name)
            part = file.with_name(f".{file.name}.{os.getpid()}")
            with part.open("wb") as stream:
                np.save(stream, arrays[name])
            part.replace(file)

    def read(self, id: int) -> Arrays:
        """An image's arrays, memory-mapped."""
        return {name: np.load(self._file(id, name), mmap_mode="r", allow_pickle=False) for name in self.names}

    def remove(self) -> None:
        """Delete the cache; all processes must have finished reading."""
        meet()
        if first_process():
            shutil.rmtree(self.folder)

    def _file(self, id: int, name: str) -> Path:
        return self.folder / f"{id}.{name}.npy"


class CachingModule(L.LightningModule):
    """Fills a cache with `trainer.predict`; images that are cached already are skipped.

    Args:
        detector: a trained detector.
        describe: (detector, batch) -> the arrays of each image.
        dataset: the images, without augmentation.
        cache: the cache to fill.
        collate: makes batches.
        batch_size, num_workers: options of the data loader.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        describe: Callable[[Detector, Batch], list[Arrays]],
        dataset: DetectionDataset,
        cache: ImageCache,
        collate: Collate,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.detector, self.describe, self.dataset, self.cache = detector, describe, dataset, cache
        self.collate, self.batch_size, self.num_workers = collate, batch_size, num_workers
        # Listed before any process starts to write, so that all processes have the same list.
        self.missing = [i for i, item in enumerate(dataset.records) if not cache.has(item.id)]

    def predict_dataloader(self) -> DataLoader[Sample]:
        """This process's share of the missing images."""
        share = ShardedBatchSampler(
            len(self.missing),
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return Loader(
            Subset(self.dataset, self.missing),
            batch_sampler=share,
            collate_fn=self.collate,
            num_workers=self.num_workers,
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cache the arrays of a batch; returns its image ids [B]."""
        for id, arrays in zip(batch.ids.tolist(), self.describe(self.detector, batch), strict=True):
            self.cache.keep(id, arrays)
        return batch.ids
