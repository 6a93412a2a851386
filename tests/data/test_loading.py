"""Loaders: the same batches for any number of workers, boxes that stay with their objects, grouping, shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2

from detlab.config.compose import compose_config, plain_config
from detlab.data.datamodule import DetectionData
from detlab.data.dataset import Collate
from detlab.data.sampling import GroupedBatchSampler, ShardedBatchSampler
from detlab.data.ssd_transforms import IoUCropOrNot
from detlab.data.transforms import LargeScaleJitter, Resize, as_sample
from detlab.tensors.structures import Batch
from detlab.training.build import make_data
from tests.data.writing import simple_coco


def shapes_data(*overrides: str) -> DetectionData:
    base = ["data.counts={train: 12, val: 4, test: 4}", "name=x", "paths.run_dir=."]
    return make_data(plain_config(compose_config("train", [*base, *overrides]), ("model", "data", "augment", "seed")))


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip([*a[:4], *a.targets], [*b[:4], *b.targets], strict=True))


@pytest.mark.parametrize("augment", ["flip_color", "ssd", "scale_jitter"])
def test_workers_change_nothing(augment: str) -> None:
    batches = []
    for workers in (0, 2):
        data = shapes_data(f"augment={augment}", f"data.num_workers={workers}", "data.batch_size=5", "seed=3")
        loader = data.train_dataloader()
        epochs = []
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            epochs += list(loader)
        batches.append(epochs)
    assert len(batches[0]) == 6
    assert all(same(a, b) for a, b in zip(*batches, strict=True))


def test_epochs_and_seeds_differ() -> None:
    data = shapes_data()
    loader = data.train_dataloader()
    first = next(iter(loader))
    loader.batch_sampler.set_epoch(1)
    assert not torch.equal(first.ids, next(iter(loader)).ids)
    assert not torch.equal(first.ids, next(iter(shapes_data("seed=1").train_dataloader())).ids)


def painted(boxes: torch.Tensor, height: int = 80, width: int = 120) -> dict:
    """A black image with every box painted white."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes.int().tolist():
        image[:, y1:y2, x1:x2] = 255
    n = len(boxes)
    none = torch.zeros(n, dtype=torch.bool)
    return as_sample(image, boxes, torch.arange(n), torch.ones(n), none, none)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1.0),
        v2.RandomVerticalFlip(1.0),
        LargeScaleJitter((0.5, 2.0)),
        v2.RandomZoomOut(fill=0, p=1.0),
        IoUCropOrNot(),
    ],
)
def test_boxes_stay_on_their_objects(transform: torch.nn.Module) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        sample = transform(painted(torch.tensor([[10.0, 10, 40, 40], [60, 30, 110, 70]])))
        image, boxes = sample["image"], sample["boxes"]
        assert tuple(boxes.canvas_size) == tuple(image.shape[-2:])
        covered = torch.zeros(image.shape[-2:], dtype=torch.bool)
        for x1, y1, x2, y2 in boxes.tolist():
            if x2 - x1 > 4 and y2 - y1 > 4:
                inner = image[0, int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1]
                assert inner.float().mean() > 240
            covered[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3] = True
        if not isinstance(transform, IoUCropOrNot):  # it may leave out a box whose centre is outside
            assert image[0][~covered].max().item() < 60 if (~covered).any() else True
        assert len(sample["labels"]) == len(boxes) == len(sample["area"])


@pytest.mark.parametrize(
    ("mode", "size", "limit", "image", "expected"),
    [
        ("short_side", 600, 1000, (375, 500), (600, 800)),
        ("short_side", 800, 1333, (427, 640), (800, 1199)),
        ("short_side", 800, 1333, (200, 640), (417, 1333)),
        ("letterbox", 300, None, (100, 200), (150, 300)),
        ("warp", [300, 320], None, (100, 200), (300, 320)),
    ],
)
def test_sizes(mode: str, size: object, limit: int | None, image: tuple, expected: tuple) -> None:
    resize = Resize(mode=mode, size=size, max_size=limit)
    assert resize.target(image) == expected
    height, width = image
    sample = resize.sample(painted(torch.tensor([[0.0, 0, width / 2, height / 2]]), height, width))
    assert tuple(sample["image"].shape[-2:]) == expected
    torch.testing.assert_close(
        torch.as_tensor(sample["boxes"][0]), torch.tensor([0, 0, expected[1] / 2, expected[0] / 2])
    )


def test_a_cached_image_gives_the_same_samples(tmp_path: Path) -> None:
    from detlab.data.formats.coco import coco

    simple_coco(tmp_path)
    files = {"train": "train.json", "val": "val.json"}
    options = {"root": str(tmp_path), "annotations": files, "images": dict.fromkeys(files, "images")}
    data = [coco(**options, size=20, cache_dir=None, cache=cache) for cache in ("none", "ram")]
    for _ in range(2):
        for a, b in zip(*(d.dataset("train") for d in data), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[0:1] + a[3:8], b[0:1] + b[3:8], strict=True))
            assert a.original_size == b.original_size == (40, 60)


def test_collate_pads_to_a_multiple_or_to_a_canvas(tmp_path: Path) -> None:
    data = shapes_data("data.size=100")
    samples = [data.dataset("val")[i] for i in range(3)]
    batch = Collate(divisor=32)(samples)
    assert batch.canvas == (128, 128)
    assert batch.images[:, :, 100:].sum() == 0
    assert Collate(canvas=(160, 192))(samples).canvas == (160, 192)
    assert batch.targets.real.sum() == sum(len(s.labels) for s in samples)
    with pytest.raises(ValueError, match="data.canvas"):
        Collate(canvas=(64, 64))(samples)


def test_warped_images_need_no_padding() -> None:
    data = shapes_data("data.size=100", "data.resize=warp")
    assert data.collate([data.dataset("val")[0]]).canvas == (100, 100)
    oblong = shapes_data("data.size=[96, 130]", "data.resize=warp")
    assert oblong.collate([oblong.dataset("val")[0]]).canvas == (96, 130)


def test_batches_hold_images_of_one_orientation() -> None:
    groups = [0, 1] * 10 + [0] * 7
    sampler = GroupedBatchSampler(groups, batch_size=4, shuffle=True, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 5 + 3
    assert all(len({groups[i] for i in batch}) == 1 for batch in batches)
    assert {i for batch in batches for i in batch} == set(range(27))


def test_processes_share_each_global_batch() -> None:
    groups = [0] * 24
    whole = list(GroupedBatchSampler(groups, batch_size=4, shuffle=True, seed=1))
    halves = [
        list(GroupedBatchSampler(groups, batch_size=2, shuffle=True, seed=1, rank=r, world_size=2)) for r in (0, 1)
    ]
    assert whole == [a + b for a, b in zip(*halves, strict=True)]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_shards_hold_every_image(world: int, count: int) -> None:
    shards = [list(ShardedBatchSampler(count, batch_size=2, rank=r, world_size=world)) for r in range(world)]
    assert len({len(s) for s in shards}) == 1
    assert {i for shard in shards for batch in shard for i in batch} == set(range(count))
    alone = list(ShardedBatchSampler(count, batch_size=2))
    dealt = [batch for turn in zip(*shards, strict=True) for batch in turn]
    assert dealt[: len(alone)] == alone  # batches do not depend on the number of processes
    assert all(batch in alone for batch in dealt)


def test_shapes_are_a_function_of_seed_and_index() -> None:
    a, b, other = shapes_data(), shapes_data("seed=5"), shapes_data("data.shapes_seed=1")
    for x, y in zip(a.dataset("val"), b.dataset("val"), strict=True):
        assert torch.equal(x.image, y.image)
        assert torch.equal(x.boxes, y.boxes)
    assert not torch.equal(a.dataset("val")[0].image, other.dataset("val")[0].image)
    assert not torch.equal(a.dataset("test")[0].image, a.dataset("val")[0].image)


def test_shapes_knobs() -> None:
    many = "data.counts={train: 150, val: 2, test: 2}"
    plain = shapes_data(many).records("train")
    counts = [len(r.labels) for r in plain]
    assert (min(counts), max(counts)) == (1, 6)
    sides = torch.cat([torch.as_tensor(r.boxes[:, 2:] - r.boxes[:, :2]) for r in plain])
    assert sides.max() <= 56.01
    assert sides.min() >= 13
    rare = shapes_data(many, "data.imbalance=8.0").records("train")
    tally = torch.bincount(torch.cat([torch.as_tensor(r.labels) for r in rare]), minlength=3)
    assert tally[0] > 4 * tally[1] > 8 * tally[2]
    assert max(len(r.labels) for r in shapes_data(many, "data.objects=[2, 3]").records("train")) == 3
