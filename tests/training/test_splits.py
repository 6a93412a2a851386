"""Splits that are missing, empty or of other classes: refused before the first step, named as they are, or judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detlab.commands.evaluate import evaluate
from detlab.config.compose import compose_config, plain_config
from detlab.errors import ConfigError, DataError
from detlab.runs.checkpoints import LAYOUT
from detlab.runs.resuming import NEW, Start, start_of
from detlab.training.build import check_same_data
from detlab.training.fit import train
from tests.data.writing import coco_json, picture, row

TINY = [
    "model=retinanet",
    "model/backbone=resnet18",
    "model.backbone.weights=null",
    "model.neck.width=8",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.num_sanity_val_steps=0",
    "callbacks.pictures=null",
    "callbacks.budget=null",
    "callbacks.progress=null",
    "logger=csv",
    "data.size=32",
    "data.max_size=null",
    "data.num_workers=0",
    "data.cache_dir=null",
    "data.batch_size=2",
    "model.backbone.norm=gn",
    "threads=1",
    "name=x",
]


def config(root: Path, run: Path, *more: str) -> dict[str, Any]:
    return plain_config(compose_config("train", [*TINY, f"data.root={root}", f"paths.run_dir={run}", *more]))


def coco(root: Path, train_rows: list[dict[str, Any]], val_rows: list[dict[str, Any]]) -> Path:
    """Two training pictures and one of val."""
    for i in range(3):
        picture(root / f"{i}.png")
    for split, ids, rows in (("train", (0, 1), train_rows), ("val", (2,), val_rows)):
        images = [{"id": i + 1, "file_name": f"{i}.png", "height": 40, "width": 60} for i in ids]
        coco_json(root / f"{split}.json", images, rows)
    return root


BOXES = [row(1, 1, [5, 5, 20, 15]), row(2, 2, [5, 5, 20, 15])]
LAST = row(3, 3, [5, 5, 20, 15])


@pytest.mark.parametrize(
    ("train_rows", "val_rows", "message"),
    [
        ([], [LAST], r"No image of the train split has a box .*'image without boxes' \(2 in train, such as 0.png"),
        ([row(1, 1, [1, 2, 3])] * 3, [LAST], r"train split has a box .*'malformed box' \(3 in train"),
        ([r | {"iscrowd": "1"} for r in BOXES], [LAST], r"train split has a box .*'crowd box' \(2 in train"),
        (BOXES, [], r"val split has a box that counts, so monitor=val/map .*'image without boxes' \(1 in val"),
        (BOXES, [LAST | {"iscrowd": 1}], r"val split has a box that counts.*'crowd box' \(1 in val"),
    ],
)
def test_what_cannot_be_learned_or_judged_is_refused_before_the_first_step(
    tmp_path: Path, train_rows: list, val_rows: list, message: str
) -> None:
    root = coco(tmp_path / "data", train_rows, val_rows)
    with pytest.raises(DataError, match=message):
        train(config(root, tmp_path / "run", "data=coco"))
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_val_without_boxes_is_taken_where_the_loss_is_monitored(tmp_path: Path) -> None:
    root = coco(tmp_path / "data", BOXES, [])
    more = ["data=coco", "monitor=val/loss", "callbacks.checkpoint.mode=min"]
    assert train(config(root, tmp_path / "run", *more)) is not None


def test_without_a_test_split_the_numbers_say_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    root = coco(tmp_path / "data", BOXES, [LAST])
    train(config(root, run, "data=coco"))
    result = json.loads((run / "result.json").read_text())
    assert result["split"] == "val"
    assert "selected and judged on val" in result["note"]
    columns = next(run.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert not [name for name in columns if name.startswith("test/")]
    assert "val_best/map" in columns
    said = " ".join(capsys.readouterr().out.split())
    assert "data.test_fraction" in said
    assert "test split" not in said.replace("a test split of the data set's own", "")
    other_data(tmp_path, run, capsys)


def other_data(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run judged on a data set with a test split alone, of other classes in another order."""
    root = tmp_path / "other"
    picture(root / "t.png")
    images = [{"id": 9, "file_name": "t.png", "height": 40, "width": 60}]
    rows = [row(1, 9, [5, 5, 20, 15], 6), row(2, 9, [5, 5, 9, 9], 3)]
    coco_json(root / "test.json", images, rows, names=("cow", "cat"))
    evaluated = tmp_path / "evaluated"
    options = ["run=" + str(run), f"++data.root={root}", f"paths.run_dir={evaluated}", "trainer.accelerator=cpu"]
    results = evaluate(plain_config(compose_config("evaluate", options)))
    said = " ".join(capsys.readouterr().out.split())
    assert "the data set lacks dog" in said
    assert "the model does not know cow (1 boxes)" in said
    assert "ap/cat" in results
    assert "ap/dog" not in results
    truth = json.loads((evaluated / "ground_truth.json").read_text())
    assert [c["name"] for c in truth["categories"]] == ["cat", "dog"]
    assert [a["bbox"] for a in truth["annotations"]] == [[5, 5, 20, 15]]
    assert json.loads((evaluated / "result.json").read_text())["split"] == "test"
    coco_json(root / "test.json", images, rows, names=("cow", "hen"))
    with pytest.raises(DataError, match=r"\(cow, hen\) and the model's \(cat, dog\) have no name in common"):
        evaluate(plain_config(compose_config("evaluate", options)))


def test_a_test_split_without_boxes_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco(tmp_path / "data", BOXES, [LAST])
    picture(root / "t.png")
    coco_json(root / "test.json", [{"id": 9, "file_name": "t.png", "height": 40, "width": 60}], [])
    train(config(root, tmp_path / "run", "data=coco"))
    said = " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["split"] == "test"
    assert "map" not in result["metrics"]
    assert "The test split has no box that counts" in said


@pytest.mark.parametrize(("then", "now", "said"), [("f", "f", False), (None, "f", False), ("f", "g", True)])
def test_resuming_on_other_data_says_so(
    capsys: pytest.CaptureFixture[str], then: str | None, now: str, said: bool
) -> None:
    check_same_data(Start(Path("x.ckpt"), 3, ("a",), then), ["a"], now)
    check_same_data(NEW, ["b"], now)
    assert ("before and after step 3 do not compare" in " ".join(capsys.readouterr().out.split())) == said


def loops(steps: Any = 4, epochs: Any = 1) -> dict[str, Any]:
    """The numbers in Lightning's state of a fit loop that are compared with those of the checkpoint."""
    optimizer = {"optimizer": {"step": {"total": {"completed": steps}}}}
    return {
        "epoch_loop.automatic_optimization.optim_progress": optimizer,
        "epoch_progress": {"current": {"completed": epochs}},
    }


def start_from(folder: Path, **changes: Any) -> Start:
    (folder / "checkpoints").mkdir()
    (folder / "status.json").write_text('{"data_fingerprint": "f"}')
    facts = {"config": {"model": {}}, "class_names": ["a", "b"], "category_ids": [1, 2], "layout": LAYOUT}
    content = {
        "state_dict": {},
        "global_step": 4,
        "detlab": facts,
        "epoch": 1,
        "optimizer_states": [{}],
        "lr_schedulers": [{"last_epoch": 4}],
        "loops": {"fit_loop": loops()},
        "callbacks": [1],
    }
    torch.save(content | changes, folder / "checkpoints" / "last.ckpt")
    return start_of({"resume": True, "paths": {"run_dir": str(folder)}, "model": {}})


def test_a_checkpoint_is_resumed_with_its_classes_and_data(tmp_path: Path) -> None:
    assert start_from(tmp_path)[1:] == (4, ("a", "b"), "f")


@pytest.mark.parametrize(
    "changes", [{"loops": {}}, {"loops": "x"}, {"loops": {"fit_loop": 5}}, {"optimizer_states": []}]
)
def test_a_checkpoint_without_a_place_in_training_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="holds weights only, nothing to go on from"):
        start_from(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"global_step": -3}, "its global_step is -3, but its loops counted 4"),
        ({"global_step": 10**30}, f"its global_step is {10**30}, but its loops counted 4"),
        ({"epoch": 7}, "its epoch is 7, but its loops counted 1"),
        ({"epoch": None}, "its epoch is None, but its loops counted 1"),
        ({"loops": {"fit_loop": loops(steps=-4)}, "global_step": -4}, "its global_step is -4, but"),
        ({"loops": {"fit_loop": {"epoch_progress": 5}}}, "its global_step is 4, but its loops counted None"),
        ({"lr_schedulers": [5]}, "its lr_schedulers are no list of states"),
        ({"lr_schedulers": {"last_epoch": 1}}, "its lr_schedulers are no list of states"),
        ({"lr_schedulers": [{"last_epoch": "x"}]}, "a last_epoch of its lr_schedulers is no number of steps"),
        ({"optimizer_states": "state"}, "its optimizer_states are no list of states"),
        ({"lr_schedulers": []}, "it has not as many lr_schedulers as optimizer_states"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"is damaged: {said}"):
        start_from(tmp_path, **changes)


def test_a_run_that_fails_in_its_first_evaluation_keeps_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detlab.training.lightning_module import DetectionModule

    def fail(self: DetectionModule, split: str) -> None:
        raise ValueError("no metric")

    monkeypatch.setattr(DetectionModule, "_finish", fail)
    root = coco(tmp_path / "data", BOXES, [LAST])
    with pytest.raises(ValueError, match="no metric"):
        train(config(root, tmp_path / "run", "data=coco"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
