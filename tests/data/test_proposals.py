"""Proposals of the data layer: the grid, the file format and its checks, and boxes that stay on their image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from detlab.config.compose import compose_config, plain_config
from detlab.data import DetectionData
from detlab.data.proposals.store import (
    GRID_RATIOS,
    ProposalFile,
    grid_proposals,
    open_proposals,
    proposal_file,
    read_proposals,
    write_proposals,
)
from detlab.data.records import Record, record
from detlab.data.ssd_transforms import IoUCropOrNot
from detlab.data.transforms import LargeScaleJitter, Resize, as_sample
from detlab.errors import DataError
from detlab.training.build import make_data


def records(count: int = 3, size: tuple[int, int] = (40, 60)) -> list[Record]:
    return [record(id=i + 1, name=f"{i}.png", path=None, size=size, objects=[]) for i in range(count)]


def small_file(items: Sequence[Record]) -> ProposalFile:
    """Of each image two boxes, the better one second."""
    boxes = np.array([[0, 0, 10, 10], [5, 6, 50, 40]], np.float32)
    moved = [np.add(boxes, [[0], [k / 8]]) for k in range(len(items))]
    return proposal_file("by hand", items, [(b, np.array([0.2, 0.9])) for b in moved])


def shapes(*overrides: str, model: str = "fast_rcnn") -> DetectionData:
    base = [
        "data.counts={train: 6, val: 3, test: 2}",
        "data.side=64",
        "data.size=64",
        "data.sizes=[14, 30]",
        f"model={model}",
    ]
    config = compose_config("train", ["name=x", "paths.run_dir=.", *base, *overrides])
    return make_data(plain_config(config, ("model", "data", "augment", "seed")))


def test_a_file_comes_back_by_falling_score(tmp_path: Path) -> None:
    items = records()
    write_proposals(tmp_path / "train.npz", small_file(items))
    assert [p.name for p in tmp_path.iterdir()] == ["train.npz"]
    stored = open_proposals(str(tmp_path), None)
    stored.check(items, "train", "here")
    stored.check(items[1:2], "train", "here")
    boxes, scores = stored(items[2])
    assert boxes.dtype == scores.dtype == np.float32
    assert scores.tolist() == pytest.approx([0.9, 0.2])
    assert boxes.tolist() == [[5.25, 6.25, 50.25, 40.25], [0, 0, 10, 10]]
    boxes, _ = open_proposals(str(tmp_path / "train.npz"), 1)(items[0])
    assert boxes.tolist() == [[5, 6, 50, 40]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "is not a proposal file, or is truncated"),
        (lambda data: data[: len(data) // 2], "is not a proposal file, or is truncated"),
        (lambda data: b"\x93NUMPY garbage", "is not a proposal file, or is truncated"),
        (lambda data: data[:200] + bytes(64) + data[264:], "is not a proposal file|arrays do not fit|no box of it"),
    ],
)
def test_damaged_files_are_one_sentence(spoil: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    write_proposals(file, small_file(records()))
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(DataError, match=rf"data\.proposals: .*({message}).*; write it again with detlab proposals"):
        read_proposals(file)


def test_foreign_files_are_one_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", boxes=np.zeros((2, 4)))
    with pytest.raises(DataError, match="is not a file of detlab proposals"):
        read_proposals(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="is not a proposal file"):
        read_proposals(tmp_path / "pickled.npz")
    for nowhere in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"data\.proposals=.* is neither grid nor a file"):
            open_proposals(str(nowhere), None)


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ((5, 5, 62, 20), 0.5),
        ((-3, 5, 20, 20), 0.5),
        ((5, 5, 5, 20), 0.5),
        ((5, np.nan, 20, 30), 0.5),
        ((5, 5, 20, 30), -1.0),
    ],
)
def test_boxes_that_are_none_of_the_image(box: tuple, score: float, tmp_path: Path) -> None:
    items = records()
    good = (np.array([[1, 1, 61, 40]], np.float32), np.ones(1))  # one pixel beyond is other tools' convention
    file = proposal_file("by hand", items, [good, (np.array([box], np.float32), np.array([score])), good])
    write_proposals(tmp_path / "train.npz", file)
    with pytest.raises(DataError, match=r"for 1\.png of 60x40 px, which is no box of it"):
        read_proposals(tmp_path / "train.npz")


def test_files_of_other_images_are_refused(tmp_path: Path) -> None:
    items = records(4)
    write_proposals(tmp_path / "train.npz", small_file(items[:3]))
    stored = open_proposals(str(tmp_path), None)
    with pytest.raises(DataError, match=r"data\.proposals=here lacks image 3\.png \(id 4\) of the train split"):
        stored.check(items, "train", "here")
    renamed = record(id=2, name="x.png", path=None, size=(40, 60), objects=[])
    with pytest.raises(DataError, match=r"another data set: image id 2 is not x\.png there"):
        stored.check([renamed], "train", "here")
    with pytest.raises(DataError, match=r"another data set: 0\.png is 60x40 px there and 60x50 here"):
        stored.check(records(1, (50, 60)), "train", "here")


@pytest.mark.parametrize(
    ("size", "count"), [((480, 640), 1000), ((480, 640), 100), ((128, 128), 2000), ((30, 900), 500)]
)
def test_the_grid(size: tuple[int, int], count: int) -> None:
    boxes, scores = grid_proposals(size, count)
    assert 0.85 * count <= len(boxes) <= count
    assert (boxes[:, :2] >= -1e-3).all()
    assert (boxes[:, 2:] <= np.array(size[::-1]) + 1e-3).all()
    assert (np.diff(scores) <= 0).all()
    assert scores.min() >= 0
    assert len(np.unique(boxes.round(2), axis=0)) == len(boxes)
    again = grid_proposals(size, count)
    assert np.array_equal(boxes, again[0])
    if size == (480, 640):  # elsewhere the largest boxes are cut to the image
        ratios = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
        assert set(ratios.round(3)) >= set(GRID_RATIOS)
    best = boxes[: len(boxes) // 4]  # a quarter is a thinner grid: it still reaches every corner
    assert best[:, 0].min() <= size[1] * 0.05
    assert best[:, 2].max() >= size[1] * 0.95


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (5, 5)])
def test_the_grid_of_tiny_images(size: tuple[int, int]) -> None:
    boxes, _ = grid_proposals(size, 50)
    assert len(boxes) >= 1
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("count", [1, 3, 14, 16])
def test_a_grid_never_has_more_boxes_than_asked_for(count: int) -> None:
    assert 0 < len(grid_proposals((128, 128), count)[0]) <= count


@pytest.mark.parametrize(
    "transform",
    [v2.RandomHorizontalFlip(1.0), LargeScaleJitter((0.5, 2.0)), v2.RandomZoomOut(fill=0, p=1.0), IoUCropOrNot()],
)
def test_proposals_move_with_their_image(transform: torch.nn.Module) -> None:
    """A proposal that equals a box goes where the box goes; one around nothing may stay behind alone."""
    boxes = torch.tensor([[10.0, 10, 40, 40], [60, 30, 110, 70]])
    no = torch.zeros(2, dtype=torch.bool)
    for seed in range(6):
        torch.manual_seed(seed)
        image = torch.zeros(3, 80, 120, dtype=torch.uint8)
        proposals = torch.cat([boxes, torch.tensor([[0.0, 0, 120, 80]])])
        sample = transform(as_sample(image, boxes, torch.arange(2), torch.ones(2), no, no, proposals, torch.rand(3)))
        assert len(sample["proposals"]) == 3
        for label, box in zip(sample["labels"], sample["boxes"], strict=True):
            assert torch.equal(torch.as_tensor(sample["proposals"][label]), torch.as_tensor(box))


def test_resizing_takes_proposals_along() -> None:
    no = torch.zeros(0, dtype=torch.bool)
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    proposals = torch.tensor([[10.0, 20, 50, 80]])
    sample = as_sample(image, torch.zeros(0, 4), no.long(), no.float(), no, no, proposals, torch.ones(1))
    out = Resize(mode="warp", size=[50, 50]).sample(sample)
    assert out["proposals"].tolist() == [[2.5, 10, 12.5, 40]]


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_batches_hold_the_proposals_of_each_image(cache: str, tmp_path: Path) -> None:
    data = shapes()
    assert "a grid of about 1000 boxes is made per image" in data.notes[0]
    for split in ("train", "val", "test"):
        found = [
            (np.array([[8.0, 8, 24, 8 + r.id % 100]] * (r.id % 3)), np.ones(r.id % 3)) for r in data.records(split)
        ]
        write_proposals(tmp_path / f"{split}.npz", proposal_file("by hand", data.records(split), found))
    data = shapes(f"data.proposals={tmp_path}", "data.size=128", f"data.cache={cache}", "augment=none")
    assert data.notes == []
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert batch.proposals.real.sum(1).tolist() == [i % 3 for i in batch.ids.tolist()]
        for boxes, real, id in zip(batch.proposals.boxes, batch.proposals.real, batch.ids.tolist(), strict=True):
            assert all(box == [16, 16, 48, 16 + 2 * (id % 100)] for box in boxes[real].tolist())


def test_grids_are_dropped_where_a_crop_leaves_nothing_of_them() -> None:
    data = shapes("data.proposals=grid", "data.proposal_count=60", "augment=ssd", "data.cache=none")
    whole = len(grid_proposals((64, 64), 60)[0])
    counts = torch.cat([b.proposals.real.sum(1) for _ in range(2) for b in data.train_dataloader()])
    assert counts.max() == whole
    for batch in data.train_dataloader():
        real = batch.proposals.real
        sides = (batch.proposals.boxes[..., 2:] - batch.proposals.boxes[..., :2])[real]
        assert sides.min() >= 1
        beyond = batch.proposals.boxes.amax(dim=(1, 2)) - batch.sizes.amax(1)
        assert (beyond <= 1e-3).all()  # float32 of a resize


def test_families_that_need_none_get_none() -> None:
    data = shapes(model="retinanet")
    assert data.notes == []
    assert next(iter(data.train_dataloader())).proposals is None


def test_the_training_images_judged_as_validation_find_their_proposals(tmp_path: Path) -> None:
    data = shapes("data.proposals=grid")
    for split in ("train", "val", "test"):
        items = data.records(split)
        write_proposals(
            tmp_path / f"{split}.npz", proposal_file("grid", items, [grid_proposals((64, 64), 20)] * len(items))
        )
    both = shapes(f"data.proposals={tmp_path}", "data.same_images=true", "data.limit={train: 4, val: 4, test: 4}")
    assert next(iter(both.val_dataloader())).proposals.real.any(1).all()
    with pytest.raises(DataError, match="lacks image val-000001.png"):
        shapes(f"data.proposals={tmp_path / 'train.npz'}")
