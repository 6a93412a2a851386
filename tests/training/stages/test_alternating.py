"""Four steps of Faster R-CNN: what each trains and freezes, what comes out, and going on after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import detlab
from detlab import build_detector
from detlab.commands.evaluate import evaluate
from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.data.proposals.store import read_proposals
from detlab.errors import ConfigError
from detlab.runs.checkpoints import Checkpoint, read_checkpoint
from detlab.tensors.structures import Batch
from detlab.training.stages.alternating import NAMES, Shared, fast_of, joined, propose, propose_batch, rpn_of
from detlab.training.stages.stage import Length, Stages
from tests.training.stages.running import config_of, interrupted, run, tool

FASTER = ["model=faster_rcnn", "model.neck.width=32", "model.head.width=32", "model.sampler.size=16"]
STAGED = [*FASTER, "training=alternating", "callbacks=ema", "optim.weight_decay=0.5", "optim.lr=0.01"]
FOLDERS = ("1-rpn", "2-detector", "3-rpn", "4-detector")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("alternating"), *STAGED)


def state(folder: Path, number: int = 0, ckpt: str = "best") -> dict[str, Tensor]:
    """Tensors of a stage's checkpoint, or of the run's."""
    part = folder / "stages" / FOLDERS[number - 1] if number else folder
    return read_checkpoint(part / "checkpoints" / f"{ckpt}.ckpt").state


def same(a: dict[str, Tensor], b: dict[str, Tensor], prefix: str) -> list[bool]:
    names = [name for name in a if name.startswith(prefix)]
    assert names, prefix
    return [torch.equal(a[name], b[name]) for name in names]


def test_the_stages_are_done_in_order_inside_one_run(trained: Path) -> None:
    done = [trained / "stages" / name / "done.json" for name in FOLDERS]
    times = [file.stat().st_mtime_ns for file in done]
    assert times == sorted(times)
    assert [json.loads(f.read_text())["stage"] for f in done] == list(FOLDERS)
    status = json.loads((trained / "status.json").read_text())
    assert (status["state"], status["stage"]) == ("finished", None)
    kinds = [
        read_checkpoint(f.parent / "checkpoints" / "last.ckpt").config["model"]["_target_"].split(".")[-1] for f in done
    ]
    assert kinds == ["RPNDetector", "FastRCNN", "RPNDetector", "FastRCNN"]


def test_the_budget_is_that_of_all_stages(trained: Path) -> None:
    spent = [json.loads((trained / "stages" / name / "budget.json").read_text()) for name in FOLDERS]
    whole = json.loads((trained / "budget.json").read_text())
    assert whole["epochs"] == sum(stage["epochs"] for stage in spent) == 4
    assert whole["images_seen"] == sum(stage["images_seen"] for stage in spent)
    assert whole["seconds"] >= sum(stage["seconds"] for stage in spent)
    assert whole["parameters"] > max(stage["parameters"] for stage in spent)
    assert whole["batch"] == spent[-1]["batch"]


def test_detectors_are_trained_on_the_proposals_of_the_rpn_before(trained: Path) -> None:
    for number in (2, 4):
        source = trained / "stages" / FOLDERS[number - 2] / "proposals"
        config = read_checkpoint(trained / "stages" / FOLDERS[number - 1] / "checkpoints" / "last.ckpt").config
        assert config["data"]["proposals"] == str(source)
        assert sorted(p.name for p in source.iterdir()) == ["test.npz", "train.npz", "val.npz"]
        file = read_proposals(source / "train.npz")
        assert file.method == "rpn"
        assert len(file.ids) == 4
        assert (file.counts > 20).all()
    first, third = (read_proposals(trained / "stages" / n / "proposals/train.npz") for n in (FOLDERS[0], FOLDERS[2]))
    assert not np.array_equal(first.scores[:20], third.scores[:20])


@pytest.mark.parametrize("ckpt", ["best", "last"])
@pytest.mark.parametrize("number", [3, 4])
def test_shared_layers_are_the_same_to_the_bit(trained: Path, number: int, ckpt: str) -> None:
    """With weight decay, an average of weights, and batch norms that would follow the batches."""
    before, after = state(trained, 2), state(trained, number, ckpt)
    for prefix in ("backbone.", "neck."):
        assert all(same(before, after, prefix))
    content = torch.load(trained / "stages" / FOLDERS[number - 1] / "checkpoints" / f"{ckpt}.ckpt", weights_only=True)
    raw = {name.removeprefix("detector."): value for name, value in content["current_model_state"].items()}
    assert all(same(before, raw, "backbone."))


def test_what_is_not_shared_trains(trained: Path) -> None:
    first, second, third, fourth = (state(trained, n) for n in (1, 2, 3, 4))
    assert not all(same(first, second, "backbone.layer1.0.conv1"))  # separate trunks
    assert not all(same(second, fourth, "head.cls"))
    difference = max((second[k] - fourth[k]).abs().max().item() for k in second if k.startswith("head."))
    assert difference < 0.1  # stage 4 went on from stage 2's head
    assert not all(same(first, third, "rpn.head.cls"))


@pytest.mark.parametrize("ckpt", ["best", "last"])
def test_the_result_joins_stage_threes_rpn_and_stage_fours_head(trained: Path, ckpt: str) -> None:
    result, rpn, detector = state(trained, 0, ckpt), state(trained, 3), state(trained, 4, ckpt)
    assert all(same(rpn, result, "rpn."))
    assert all(same(detector, result, "head."))
    assert all(same(state(trained, 2), result, "backbone."))
    assert all(same(state(trained, 2), result, "neck."))
    assert result.keys() == build_detector(FASTER, num_classes=3).state_dict().keys()


def test_the_result_is_an_ordinary_detector(trained: Path, tmp_path: Path) -> None:
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    assert evaluate(tool("evaluate", tmp_path, f"run={trained}")) == pytest.approx(metrics, abs=1e-6)
    found = detlab.load(trained, ckpt="last").predict([np.zeros((70, 90, 3), np.uint8)])
    assert found[0]["boxes"].shape[1] == 4
    assert (trained / "detections.json").is_file()


def test_a_run_killed_between_stages_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    folder = interrupted(trained, tmp_path / "run", *(f"stages/{name}" for name in FOLDERS[2:]), "checkpoints")
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("stages/[12]-*/checkpoints/*")}
    run(folder, *STAGED, "resume=true")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    a, b = state(trained), state(folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_cache_left_by_a_kill_is_removed(trained: Path, tmp_path: Path) -> None:
    """Between the proposals of a split and the end of its cache."""
    folder = interrupted(trained, tmp_path / "run")
    proposals = folder / "stages" / FOLDERS[0] / "proposals"
    before = {file: file.stat().st_mtime_ns for file in proposals.iterdir()}
    (proposals / "train").mkdir()
    (proposals / "train" / "1.boxes.npy").touch()
    assert propose(Stages(config_of(folder, *STAGED, "resume=true"), NAMES, "best"), 1) == proposals
    assert {file: file.stat().st_mtime_ns for file in proposals.iterdir()} == before


def test_stages_of_another_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    with pytest.raises(ConfigError, match=r"holds an unfinished run \(stages\); resume=true"):
        run(tmp_path, *STAGED)
    with pytest.raises(ConfigError, match="training.hand_over=first is not known"):
        run(tmp_path / "new", *STAGED, "training.hand_over=first")


def plain_model(*overrides: str) -> dict[str, Any]:
    return plain_config(compose_config("train", ["name=x", "paths.run_dir=.", "model=faster_rcnn", *overrides]))[
        "model"
    ]


@pytest.mark.parametrize(
    ("overrides", "free"),
    [
        (["model/neck=none"], ()),  # C4: conv5 belongs to the head
        (["model/neck=none", "model/backbone=vgg16"], ()),
        (["model/neck=hierarchy"], ()),
        (["model/neck=fpn_p2"], ()),  # P6 has no weights
        (["model/neck=fpn"], ("neck.p6", "neck.p7")),  # levels that RoIs are not read from belong to the RPN
        (["model/neck=fpn_p2", "model.neck.norm=bn"], ()),
    ],
)
def test_the_parts_make_up_the_whole_with_every_neck(overrides: list[str], free: tuple[str, ...]) -> None:
    model = plain_model(*overrides, "model.neck.width=32") if "fpn" in overrides[0] else plain_model(*overrides)
    with torch.device("meta"):
        whole, rpn, fast = (make_detector(m, 3).state_dict() for m in (model, rpn_of(model), fast_of(model)))
    assert rpn.keys() | fast.keys() == whole.keys()
    both = rpn.keys() & fast.keys()
    assert all(name.startswith(("backbone.", "neck.")) for name in both)
    own = {name for name in rpn if name.startswith(("backbone.", "neck."))} - fast.keys()
    assert {name.rsplit(".", 1)[0] for name in own} == set(free)


def test_freezing_leaves_what_the_other_lacks() -> None:
    model = plain_model("model/neck=fpn", "model.neck.width=32")
    fast, rpn = make_detector(fast_of(model), 3), make_detector(rpn_of(model), 3)
    Shared(Checkpoint(Path("x"), {}, ("a", "b", "c"), (1, 2, 3), fast.state_dict()))(rpn)
    rpn.train()
    trainable = {name.split(".")[0] + "." + name.split(".")[1] for name, p in rpn.named_parameters() if p.requires_grad}
    assert trainable == {"neck.p6", "neck.p7", "rpn.head"}
    norms = [m for m in rpn.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert rpn.training
    assert rpn.rpn.head.training


def test_joining_checkpoints_of_different_runs_is_refused() -> None:
    a = Checkpoint(Path("a"), {}, (), (), {"backbone.x": torch.zeros(2), "rpn.y": torch.ones(1)})
    b = a._replace(path=Path("b"), state={"backbone.x": torch.ones(2)})
    with pytest.raises(RuntimeError, match="a and b share no layers: backbone.x differs"):
        joined(a, b)
    assert joined(a, a).keys() == a.state.keys()


def test_proposals_lie_in_the_image_as_stored(small_batch: Batch) -> None:
    detector = build_detector(["model=rpn", "model.neck.width=32"], num_classes=3).eval()
    batch = small_batch._replace(original_sizes=2 * small_batch.sizes)
    with torch.no_grad():
        found = propose_batch(detector, batch, for_training=True)
        boxes, scores = detector.rpn.propose(detector.rpn(detector.features(batch)), batch, for_training=True)
    for image, box, score in zip(found, boxes, scores, strict=True):
        real = score >= 0
        assert np.allclose(image["boxes"], 2 * box[real].numpy(), atol=1e-3)
        assert np.array_equal(image["scores"], score[real].numpy())


def finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    """kill -9 inside stage 2, after its first epoch; the weights are those of a run that was left alone."""
    options = [*STAGED, "debug=fast", "trainer.max_epochs=3", "trainer.limit_train_batches=2", "data.side=64"]
    options += ["data.size=64", "data.sizes=[14, 30]", "trainer.precision=32-true", "data.cache_dir=null", "test=false"]
    options = [o for o in options if not o.startswith("callbacks=")]  # the EMA's resume is Lightning's own

    def command(folder: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "detlab.commands.train", *options, f"hydra.run.dir={folder}", *more]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(command(whole))
    process = subprocess.Popen(command(cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = cut / "stages" / FOLDERS[1] / "checkpoints" / "last.ckpt"
    while not last.is_file() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (cut / "stages" / FOLDERS[1] / "done.json").exists()
    assert json.loads((cut / "status.json").read_text())["stage"] == FOLDERS[1]
    finish(command(cut, "resume=true"))
    a, b = state(whole), state(cut)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_stages_own_lengths_and_rates(tmp_path: Path) -> None:
    config = config_of(tmp_path, *FASTER, "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    stages = Stages(config, ("rpn",), "best")
    short = stages.config_of(1, Length(max_epochs=3, lr=0.5))
    assert (short["trainer"]["max_epochs"], short["optim"]["lr"]) == (3, 0.5)
    assert short["trainer"]["check_val_every_n_epoch"] == 1  # a stage is judged at its end
    long = stages.config_of(1, Length(max_epochs=9))
    assert (long["trainer"]["max_epochs"], long["trainer"]["check_val_every_n_epoch"]) == (4, 2)
    assert long["optim"]["lr"] == config["optim"]["lr"]
    assert short["callbacks"]["checkpoint"]["dirpath"] == str(tmp_path / "stages/1-rpn/checkpoints")
    assert short["callbacks"]["status"] == {
        "_target_": "detlab.training.callbacks.RunStatus",
        "run_dir": str(tmp_path),
        "stage": "1-rpn",
    }
