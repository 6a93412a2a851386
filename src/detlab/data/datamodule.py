"""The LightningDataModule of every data set: splits, audit, and loaders of `Batch`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from torch.utils.data import DataLoader

from detlab import ranges
from detlab.data.across import count_classes, name_notes, shared_images
from detlab.data.audit import AuditReport, printable
from detlab.data.checks import audited
from detlab.data.dataset import Collate, DetectionDataset, Sample
from detlab.data.flat import Records
from detlab.data.formats.source import SPLITS, Source, Splits
from detlab.data.images import MAX_PIXELS
from detlab.data.loader import Loader
from detlab.data.proposals.store import Boxes, proposal_notes, proposals_of
from detlab.data.records import Classes, Record
from detlab.data.sampling import EpochSampler, ShardedBatchSampler
from detlab.data.splits import ground_truth, of_classes, renamed, with_shares
from detlab.data.transforms import MODES, Resize
from detlab.errors import DataError
from detlab.ranges import BelowOne, Count, NonNegative, OneOf, OpenFraction, Positive, Seed, Size
from detlab.system.memory import without_collector
from detlab.tensors.structures import Batch, GroundTruth

TRAINING = ("train", "val")  # splits that training needs
KNOWN: dict[str, tuple[str | None, ...]] = {
    "on_error": ("drop", "raise"),
    "empty": ("keep", "drop"),
    "cache": ("none", "ram"),
    "check_images": ("full", "header"),
    "voc_ap": (None, "voc07", "voc12"),
}
Pair = Annotated[Sequence[ranges.Side], Size(2, 2)]  # height, width


class DetectionData(L.LightningDataModule):
    """Reads and audits the splits of a source and makes their data loaders.

    Args:
        source: the data set.
        augment: torchvision v2 transform of training samples, or None.
        batch_size: images per process and step.
        eval_batch_size: the same for validation and test; null for batch_size.
        num_workers: loader processes per loader.
        worker_timeout_s: seconds to wait for a batch from a worker before the run ends with an error.
        resize: short_side, letterbox or warp; null for the family's default.
        resize_default: the family's default, set by the run.
        size, max_size: see `Resize`.
        canvas: fixed [height, width] of every batch, or null for the largest image of the batch.
        size_divisor: canvas sides are rounded up to multiples of it, where neither `canvas` nor warping fixes them.
        classes: names to keep, in label order; null for all.
        val_fraction, test_fraction, split_seed: random shares of train as val and test where the source has none.
        on_error: drop (report and go on) or raise.
        empty: keep or drop training images without boxes.
        min_box_size: px; smaller boxes are degenerate.
        aspect_grouping: batches of images of the same orientation.
        cache: none, or ram (resized images are kept in memory).
        check_images: full (every pixel is decoded once, cached) or header.
        limit: {train, val, test: first images only, or null}.
        max_pixels: larger images are refused before they are decoded.
        cache_dir: folder in which checks of files are cached.
        voc_ap: voc07 or voc12 for VOC's AP besides COCO's, or null.
        max_detections: numbers of detections per image and class at which COCO's AR is taken; AP at the largest.
        same_images: validate and test on the training images, to see whether a model can learn them by heart.
        proposals: grid, a file or folder of `detlab proposals`, or null for grid where the family needs proposals.
        proposal_count: most proposals of an image, those of the highest score; about the number of a grid.
        needs_proposals: whether the family reads `Batch.proposals`, set by the run.
        seed: the run's seed.
    """

    def __init__(
        self,
        *,
        source: Source,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        batch_size: ranges.Images = 8,
        eval_batch_size: ranges.Images | None = None,
        num_workers: ranges.Workers = 0,
        worker_timeout_s: Positive = 600.0,
        resize: Annotated[str, OneOf(MODES)] | None = None,
        resize_default: str = "short_side",
        size: ranges.Side | Pair = 800,
        max_size: ranges.Side | None = None,
        canvas: Pair | None = None,
        size_divisor: ranges.Divisor = 32,
        classes: Annotated[list[str], Size(1)] | None = None,
        val_fraction: OpenFraction = 0.1,
        test_fraction: BelowOne = 0.0,
        split_seed: Seed = 0,
        on_error: Annotated[str, OneOf(("drop", "raise"))] = "drop",
        empty: Annotated[str, OneOf(("keep", "drop"))] = "keep",
        min_box_size: NonNegative = 1.0,
        aspect_grouping: bool = True,
        cache: Annotated[str, OneOf(("none", "ram"))] = "none",
        check_images: Annotated[str, OneOf(("full", "header"))] = "full",
        limit: dict[str, Count | None] | None = None,
        max_pixels: Count = MAX_PIXELS,
        cache_dir: str | None = "~/.cache/detlab",
        voc_ap: Annotated[str, OneOf(("voc07", "voc12"))] | None = None,
        max_detections: Annotated[Sequence[ranges.PerImage], Size(1)] = (1, 10, 100),
        same_images: bool = False,
        proposals: str | None = None,
        proposal_count: ranges.PerImage = 1000,
        needs_proposals: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        options = {"on_error": on_error, "empty": empty, "cache": cache, "check_images": check_images, "voc_ap": voc_ap}
        for option, value in options.items():
            if value not in KNOWN[option]:
                listed = ", ".join(map(str, KNOWN[option]))
                raise DataError(f"data.{option}={value} is not known; use one of {listed}.")
        if other := set(limit or ()) - set(SPLITS):
            raise DataError(f"data.limit.{min(map(str, other))} is of no split; use data.limit.train, val or test.")
        self.source, self.augment, self.seed = source, augment, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.worker_timeout_s = num_workers, worker_timeout_s
        self.resize = Resize(mode=resize or resize_default, size=size, max_size=max_size)
        fixed = self.resize.canvas if canvas is None else (int(canvas[0]), int(canvas[1]))
        self.collate = Collate(divisor=size_divisor, canvas=fixed, most=max(max_pixels, MAX_PIXELS))
        self.wanted, self.split_seed = classes, split_seed
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.required: Collection[str] = TRAINING  # splits that `setup` must find
        self.on_error, self.empty, self.min_box_size = on_error, empty, min_box_size
        self.aspect_grouping, self.cache, self.check = aspect_grouping, cache, check_images
        self.limit, self.same_images = limit or {}, same_images
        self.max_pixels = max_pixels
        self.proposal_source = "grid" if proposals is None and needs_proposals else proposals
        self.proposal_count, self._notes = proposal_count, proposal_notes(proposals, proposal_count, needs_proposals)
        self.voc_ap, self.max_detections = voc_ap, tuple(max_detections)
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else None
        self.source.max_pixels, self.source.cache_dir = max_pixels, self.cache_dir
        self.report = AuditReport()
        self._splits: dict[str, Records] | None = None
        self._classes: Classes | None = None
        self._datasets: dict[str, DetectionDataset] = {}
        self._start: dict[str, int] | None = None  # position at which a resumed run continues
        self._proposals: Callable[[Record], Boxes] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names in label order."""
        return self._ready().names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """K category ids of the annotation files."""
        return self._ready().ids

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def prepare_data(self) -> None:
        """Download missing files."""
        self.source.prepare()

    @without_collector()
    def setup(self, stage: str | None = None) -> None:
        """Read and audit every split, once.

        Raises:
            DataError: a required split has no usable image, or the audit found an error with on_error=raise.
        """
        if self._splits is not None:
            return
        classes, splits = self._read()
        classes, renumber = classes.chosen(self.wanted)
        checked = {split: self._audit(split, self._of_classes(part, renumber)) for split, part in splits.items()}
        count_classes(checked.get("train"), classes.names, self.report)
        if self.on_error == "raise":
            self.report.refuse()
        shares = {"val": self.val_fraction, "test": self.test_fraction}
        drawn = ("val",) if self.required == TRAINING else ()
        checked = with_shares(checked, **shares, seed=self.split_seed, required=drawn)
        self._notes = [*self._notes, *name_notes(classes.names)]
        self._splits = {split: part[: self.limit.get(split)] for split, part in checked.items()}
        if not self.same_images:
            self._notes += shared_images(self._splits, self.report)
        else:
            self._splits = dict.fromkeys(SPLITS, self._splits.get("train", Records.of([])))
        self._classes = classes
        self.collate.check(self.resize.target(size) for part in self._splits.values() for size in part.shapes())
        for split in self.required:
            if not self._splits.get(self._name(split)):
                lost = self.report.largest_loss(split)
                raise DataError(f"The {split} split has no usable image{lost}. Check data.root and the split options.")
        self._proposals = proposals_of(self._splits, self.proposal_source, self.proposal_count)

    @property
    def notes(self) -> list[str]:
        """Notes printed before training."""
        lost = self._splits is not None and "test" in self._splits and not self._splits["test"]
        unjudged = [f"The test split has no usable image{self.report.largest_loss('test')}."] if lost else []
        return [*map(printable, (*self._notes, *self.source.notes)), *unjudged]

    def counted(self, split: str) -> int:
        """Number of boxes of a split that are not crowds: those that training and AP use."""
        return int((~self.records(split).crowd).sum())

    def match_classes(self, names: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """Number the classes as a model does, and return the names that the data and the model lack (see `renamed`)."""
        self._classes, self._splits, missing, left_out = renamed(self._ready(), self._ready_splits(), names)
        self._datasets = {}
        return missing, left_out

    def records(self, split: str) -> Records:
        """The images of a split; test falls back to val where the data set has none."""
        return self._ready_splits()[self._name(split)]

    def ground_truth(self, split: str) -> GroundTruth:
        """Annotations of a split in original pixels."""
        return ground_truth(self.records(split), self._ready())

    def has(self, split: str) -> bool:
        """Whether the data set has this split of its own."""
        return bool(self._ready_splits().get(split))

    def dataset(self, split: str) -> DetectionDataset:
        """The samples of a split; only train is augmented."""
        name = self._name(split)
        if name not in self._datasets:
            self._datasets[name] = DetectionDataset(
                self.records(name),
                self.source,
                self.resize,
                augment=self.augment if name == "train" else None,
                seed=self.seed,
                min_box_size=self.min_box_size,
                cache=self.cache == "ram",
                proposals=self._proposals,
            )
        return self._datasets[name]

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled batches of this process."""
        dataset = self.dataset("train")
        sizes = self.records("train").sizes
        tall = ((sizes[:, 0] > sizes[:, 1]) & self.aspect_grouping).astype(int).tolist()
        sampler = EpochSampler(dataset, tall, batch_size=self.batch_size, shuffle=True, seed=self.seed, **self._share())
        if self._start is not None:
            offset = self._start["images"] // (self.batch_size * sampler.world_size)
            sampler.load_state_dict({"epoch": self._start["epoch"], "offset": offset})
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        """The validation images of this process, in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """The test images of this process, in order."""
        return self._in_order("test")

    def samples(self, ids: Sequence[int], epoch: int) -> Batch:
        """The training batch of these images in an epoch; repeatable, since samples are functions of the epoch."""
        dataset = self.dataset("train")
        dataset.set_epoch(epoch)
        rows = {key: i for i, key in enumerate(self.records("train").ids.tolist())}
        return self.collate([dataset[rows[i]] for i in ids])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device; the copy from pinned memory to a GPU runs beside the step before."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def state_dict(self) -> dict[str, int]:
        """Position of training: the epoch, and how many of its images were used (workers may have read more)."""
        assert self.trainer is not None  # the trainer calls this
        loop = self.trainer.fit_loop
        epoch: Any = loop.epoch_progress.current
        batches = loop.epoch_loop.batch_progress.current.ready if epoch.ready > epoch.processed else 0
        return {"epoch": epoch.processed, "images": batches * self.batch_size * self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at another run's position, also with another batch size or number of processes."""
        self._start = dict(state_dict)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the augmentation (Lightning does this through the batch sampler)."""
        self.dataset("train").set_epoch(epoch)

    def _in_order(self, split: str) -> DataLoader[Sample]:
        dataset = self.dataset(split)
        return self._loader(
            dataset, ShardedBatchSampler(len(dataset), batch_size=self.eval_batch_size, **self._share())
        )

    def _loader(self, dataset: DetectionDataset, sampler: Iterable[list[int]]) -> DataLoader[Sample]:
        return Loader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            timeout=self.worker_timeout_s if self.num_workers else 0,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _audit(self, split: str, records: Sequence[Record]) -> Records:
        return audited(
            records,
            split,
            self.report,
            decode=self.check == "full",
            max_pixels=self.max_pixels,
            cache_dir=self.cache_dir,
            min_size=self.min_box_size,
            drop_empty=self.empty == "drop" and split == "train",
        )

    def _read(self) -> tuple[Classes, Splits]:
        """All splits of the source; for evaluation, only the required ones if not all can be read."""
        try:
            return self.source.read(self.report)
        except DataError:
            if self.required == TRAINING or not self.required:
                raise
            self.report = AuditReport()
            return self.source.read(self.report, self.required)

    def _of_classes(self, records: Sequence[Record], renumber: dict[int, int]) -> Sequence[Record]:
        return records if self.wanted is None else of_classes(Records.of(records), renumber)

    def _name(self, split: str) -> str:
        if split not in SPLITS:
            raise DataError(f"There is no split {split!r}; use one of {', '.join(SPLITS)}.")
        return "val" if split == "test" and not self._ready_splits().get("test") else split

    def _ready(self) -> Classes:
        if self._classes is None:
            self.setup()
        assert self._classes is not None
        return self._classes

    def _ready_splits(self) -> dict[str, Records]:
        self._ready()
        assert self._splits is not None
        return self._splits

    def _share(self) -> dict[str, int]:
        trainer: Any = self.trainer
        return {"rank": getattr(trainer, "global_rank", 0), "world_size": getattr(trainer, "world_size", 1)}
