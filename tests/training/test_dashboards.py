"""What dashboards and budget.json hold of a run, read back from the files."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detlab.detectors import RetinaNet
from tests.commands.test_running import run, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("DETLAB_SWEEP", "neck-seed-1a2b3c")
        options = ["logger=many", "logger.wandb.name=fpn-seed0", "logger.wandb.tags=[retinanet, fpn]"]
        return run(tmp_path_factory.mktemp("run"), *small("retinanet"), *options)


BLOCK, HEADER = 32768, struct.Struct("<IHB")  # LevelDB's log: blocks of records (checksum, length, kind)
WHOLE, LAST = 1, 4  # between them: first and middle parts


def records_of(file: Path) -> Iterator[Any]:
    """The records of a W&B transaction log, which is what `wandb sync` reads."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + HEADER.size <= len(data):
        if BLOCK - place % BLOCK < HEADER.size:  # no header begins in the last bytes of a block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        place += HEADER.size
        parts += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_the_offline_wandb_run_holds_metrics_config_and_images(folder: Path) -> None:
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    records = list(records_of(file))
    started = next(r.run for r in records if r.WhichOneof("record_type") == "run")
    assert (started.display_name, started.run_group) == ("fpn-seed0", "neck-seed-1a2b3c")
    assert list(started.tags) == ["retinanet", "fpn"]
    assert started.run_id == (folder / "wandb_id").read_text()
    config = {u.key: json.loads(u.value_json) for r in records for u in (*r.config.update, *r.run.config.update)}
    assert config["model.neck._target_"] == "detlab.model.necks.FPN"
    items = [i for r in records for i in r.history.item]
    logged = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    assert logged["val/map"] >= 0
    assert logged["test/pictures/_type"] == "images/separated"
    assert logged["test/pictures/all_boxes"][0].keys() == {"ground_truth", "predictions"}
    assert logged["test/ap_by_class/nrows"] == 3
    assert logged["test/precision_recall_table/nrows"] == 303  # 101 recalls of 3 classes
    summary = {u.key or "/".join(u.nested_key): u.value_json for r in records for u in r.summary.update}
    assert json.loads(summary["test/map"]) == json.loads((folder / "result.json").read_text())["metrics"]["map"]
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [0]
    media = folder / "wandb" / file.parent.name / "files" / "media"
    assert list((media / "images" / "test").glob("pictures*.png"))


def test_a_run_that_fails_ends_with_exit_code_1_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RetinaNet, *args: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(RetinaNet, "loss", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        run(tmp_path, *small("retinanet"), "logger=wandb", "logger.wandb.name=unlucky", "logger.wandb.tags=[]")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    end = time.monotonic() + 30  # W&B's own process writes the file, on a busy machine after `finish` returned
    while not (codes := [r.exit.exit_code for r in records_of(file) if r.HasField("exit")]) and time.monotonic() < end:
        time.sleep(0.2)
    assert codes == [1]


def test_tensorboard_hparams_hold_choices_and_the_result(folder: Path) -> None:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    assert "_hparams_/session_start_info" in accumulator.summary_metadata
    values = {tag: accumulator.Scalars(tag)[-1].value for tag in accumulator.Tags()["scalars"] if "hparam/" in tag}
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert values["hparam/map"] == pytest.approx(metrics["map"])
    start = accumulator.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"seed" in start
    assert b"_target_" not in start  # choices alone, not the hundreds of keys that all runs share


def test_the_budget_of_a_run(folder: Path) -> None:
    """Two steps of two images of 64 px on a RetinaNet."""
    budget = json.loads((folder / "budget.json").read_text())
    assert (budget["epochs"], budget["images_seen"], budget["batch"]) == (1, 4, 2)
    assert budget["lr"] == pytest.approx(0.001 * (2 / 8) ** 0.5)  # sqrt scaling from 8 images
    assert 11_000_000 < budget["parameters"] < 12_000_000
    assert 3e8 < budget["flops"] < 1e9  # ResNet-18 at 64 px: 0.3 G, and the head
    assert 0 < budget["latency_ms"] < 60_000
    assert 0 < budget["hours"] < 1
