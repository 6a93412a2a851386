"""detlab proposals: files by every method, going on where it was killed, and recall against worked numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detlab
from detlab.commands import proposals as command
from detlab.config.compose import compose_config, plain_config
from detlab.config.validate import validate
from detlab.data.proposals.store import Boxes, open_proposals, proposal_file, read_proposals, write_proposals
from detlab.data.records import Record, record
from detlab.errors import ConfigError, DataError
from detlab.training.fit import train

SMALL = ["data.side=64", "data.size=64", "data.sizes=[14, 30]", "data.counts={train: 40, val: 4, test: 4}"]


def propose(folder: Path, *overrides: str) -> Path:
    config = compose_config("proposals", [*SMALL, f"paths.run_dir={folder}", "workers=1", *overrides])
    plain = plain_config(config)
    validate(plain, "proposals")  # as the command does before it starts
    return command.propose(plain)


def test_grid_files_serve_training(tmp_path: Path) -> None:
    folder = propose(tmp_path / "grid", "count=50")
    assert sorted(p.name for p in folder.iterdir()) == ["recall.json", "test.npz", "train.npz", "val.npz"]
    assert set(read_proposals(folder / "train.npz").counts.tolist()) == {47}  # about 50
    options = [*SMALL, "model=sppnet", "model.head.width=16", f"data.proposals={folder}", "debug=fast", "test=false"]
    options += [f"paths.run_dir={tmp_path / 'run'}", "name=x", "callbacks.progress=null", "trainer.precision=32-true"]
    train(plain_config(compose_config("train", options)))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_killed_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = command._grids

    def dies(records: Sequence[Record], count: int) -> list[Boxes]:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(records[0].id)
        return real(records, count)

    def counts(records: Sequence[Record], count: int) -> list[Boxes]:
        seen.append(records[0].id)
        return real(records, count)

    monkeypatch.setattr(command, "_grids", dies)
    with pytest.raises(KeyboardInterrupt):
        propose(tmp_path, "splits=[train]", "count=20")
    assert not (tmp_path / "train.npz").exists()
    monkeypatch.setattr(command, "_grids", counts)
    with pytest.raises(ConfigError, match="would mix it with grid, at most 30"):
        propose(tmp_path, "splits=[train]", "count=30")
    propose(tmp_path, "splits=[train]", "count=20")
    assert seen == [1, 17, 33]  # each part of 16 images once
    assert not (tmp_path / "train.parts").exists()
    whole = read_proposals(tmp_path / "train.npz")
    assert len(whole.ids) == 40
    propose(tmp_path, "splits=[train]", "count=20")
    assert len(seen) == 3  # a file that is there is only judged
    (tmp_path / "train.npz").unlink()
    propose(tmp_path, "splits=[train]", "count=20")
    assert all(np.array_equal(a, b) for a, b in zip(whole, read_proposals(tmp_path / "train.npz"), strict=True))


@pytest.mark.parametrize("model", ["rpn", "faster_rcnn"])
def test_boxes_of_a_trained_rpn(model: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*SMALL, f"model={model}", "model.neck.width=32", "debug=fast", "test=false", f"paths.run_dir={run}"]
    options += ["name=x", "callbacks.progress=null", "trainer.precision=32-true"]
    train(plain_config(compose_config("train", options)))
    folder = propose(tmp_path / "boxes", "method=rpn", f"run={run}", "splits=[val]", "count=30")
    file = read_proposals(folder / "val.npz")
    assert (file.counts == 30).all()
    loaded = detlab.load(run)
    if model == "rpn":
        image = np.zeros((64, 64, 3), np.uint8)
        assert len(loaded.predict([image])[0]["boxes"]) > 0
    assert (file.boxes[:, 2:] > file.boxes[:, :2]).all()


def test_selective_search(tmp_path: Path) -> None:
    pytest.importorskip("cv2.ximgproc", reason="needs the extra selective-search (OpenCV contrib)")
    options = ("method=selective_search", "splits=[val]", "data.noise=3")
    folder = propose(tmp_path / "a", *options, "workers=2")
    found = open_proposals(str(folder), None)
    again = open_proposals(str(propose(tmp_path / "b", *options)), None)
    assert all(np.array_equal(a, b) for a, b in zip(found.files[0], again.files[0], strict=True))
    result = json.loads((folder / "recall.json").read_text())["val"]
    assert result["recall"]["0.50"]["1000"] > 0.8
    assert 5 < result["per_image"] < 500


def test_selective_search_on_a_square() -> None:
    pytest.importorskip("cv2.ximgproc", reason="needs the extra selective-search (OpenCV contrib)")
    from detlab.data.proposals.selective_search import selective_search

    image = torch.full((3, 80, 120), 30, dtype=torch.uint8)
    image[:, 20:60, 40:100] = 220
    for side in (None, 60):
        boxes, scores = selective_search(image, mode="quality", side=side, seed=0)
        assert np.abs(boxes - [40, 20, 100, 60]).max(axis=1).min() <= 4
        assert scores[0] == 1
        assert (np.diff(scores) < 0).all()


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    monkeypatch.setitem(__import__("sys").modules, "cv2.ximgproc", None)
    with pytest.raises(DataError, match=r"pip install 'detlab\[selective-search\]'"):
        propose(tmp_path, "method=selective_search")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=edge_boxes"], "method=edge_boxes must be grid, selective_search or rpn"),
        (["mode=slow"], "mode=slow must be fast or quality"),
        (["method=rpn"], "method=rpn needs run=FOLDER"),
        (["method=rpn", "run=nowhere"], "nowhere is neither a run folder nor a checkpoint"),
    ],
)
def test_mistakes_are_one_sentence(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        propose(tmp_path, *overrides)


class _Data:
    """Two images: a box of 10 x 10 px in the first, two of 20 x 10 in the second."""

    def __init__(self) -> None:
        objects = [[(0, 0, 10, 10)], [(0, 0, 20, 10), (30, 30, 50, 40)]]
        self.items = [
            record(id=i + 1, name=f"{i}", path=None, size=(60, 60), objects=[{"box": b, "label": 0} for b in o])
            for i, o in enumerate(objects)
        ]

    def records(self, split: str) -> list[Record]:
        return self.items if split == "val" else self.items[:1]

    def ground_truth(self, split: str) -> Any:
        from detlab.data.flat import Records
        from detlab.data.records import Classes
        from detlab.data.splits import ground_truth

        return ground_truth(Records.of(self.records(split)), Classes(("thing",), (1,)))


def test_recall_by_hand(tmp_path: Path) -> None:
    """IoU .8 with the first box, by its second proposal; 1.0 and .5 with the others, by the first and the 101st."""
    data = _Data()
    first = np.array([[40, 40, 50, 50], [0, 0, 10, 8]])
    far = [[50, 50, 60, 60]] * 99
    second = np.array([[0, 0, 20, 10], *far, [30, 30, 40, 40]])
    found = [(first, np.array([0.9, 0.8])), (second, np.linspace(1, 0.1, 101))]
    file = tmp_path / "val.npz"
    write_proposals(file, proposal_file("by hand", data.records("val"), found))
    result = command.judge(data, ["val"], str(file), tmp_path)["val"]
    assert result["per_image"] == 51.5
    by_iou = result["recall"]
    assert by_iou["0.50"] == pytest.approx({"100": 2 / 3, "300": 1, "1000": 1, "2000": 1})
    assert by_iou["0.55"]["300"] == by_iou["0.80"]["100"] == pytest.approx(2 / 3)
    assert by_iou["0.85"]["2000"] == by_iou["0.95"]["100"] == pytest.approx(1 / 3)
    assert result["ar_100"] == pytest.approx((7 * 2 + 3 * 1) / 30)
    assert result["ar_300"] == pytest.approx((3 + 6 * 2 + 3 * 1) / 30)
    assert json.loads((tmp_path / "recall.json").read_text())["val"] == result


def test_recall_of_a_file_takes_the_split_it_holds(tmp_path: Path) -> None:
    propose(tmp_path / "made", "count=50", "splits=[train, val]")
    propose(tmp_path / "judged", f"recall={tmp_path / 'made' / 'val.npz'}")
    assert list(json.loads((tmp_path / "judged" / "recall.json").read_text())) == ["val"]
    with pytest.raises(DataError, match="lacks image"):
        propose(tmp_path / "judged", f"recall={tmp_path / 'made' / 'val.npz'}", "splits=[test]")
