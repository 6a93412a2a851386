"""The product from end to end: train, evaluate, predict, fine-tune, resume, in every family and with every logger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detlab
from detlab.commands.evaluate import evaluate
from detlab.commands.predict import predict
from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.errors import ConfigError, DataError
from detlab.runs.checkpoints import read_checkpoint
from detlab.training.fit import train
from tests.data.writing import picture, simple_coco, simple_voc

SMALL = [
    "trainer.precision=32-true",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 8, val: 4, test: 4}",
    "data.batch_size=2",
    "model.neck.width=32",
]
WITH_WIDTH = ("retinanet", "faster_rcnn", "rpn", "fast_rcnn")  # families whose neck is an FPN
FAMILIES = {
    "retinanet": ["model.head.width=32", "model.head.depth=1"],
    "faster_rcnn": ["model.head.width=64", "model.sampler.size=16"],
    "rpn": [],
    "ssd": [],
    "refinedet": ["model.connection.width=32"],
    "fast_rcnn": ["model.head.width=64", "data.proposal_count=100"],
    "sppnet": ["model.head.width=64", "data.proposal_count=100"],
    "rcnn": ["model.pool.crop=32", "model.pool.context=4", "model.sampler.size=8", "data.proposal_count=50"],
    "yolo": ["model.neck.widths=[16, 16, 16]"],
    "yolov2": ["model.neck.width=32", "model.head.width=32"],
    "yolov1": ["model.neck.width=32", "model.head.width=16"],
}


def config_of(run_dir: Path, *overrides: str) -> dict[str, Any]:
    fixed = ["name=test", f"paths.run_dir={run_dir}", "data.cache_dir=null", "callbacks.progress=null"]
    return plain_config(compose_config("train", [*fixed, *overrides]))


def run(run_dir: Path, *overrides: str) -> Path:
    train(config_of(run_dir, *overrides))
    return run_dir


def small(family: str) -> list[str]:
    options = [o for o in SMALL if "neck" not in o or family in WITH_WIDTH]
    return [f"model={family}", "debug=fast", *options, *FAMILIES[family]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("retinanet"), *small("retinanet"))


def tool(name: str, out: Path, *overrides: str) -> dict[str, Any]:
    return plain_config(compose_config(name, [f"paths.run_dir={out}", *overrides]))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_run_leaves_all_that_is_promised_and_can_be_used_alone(family: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *small(family))
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["reason"], status["step"]) == ("finished", None, 2)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert ("ar_300" if family == "rpn" else "map") in metrics
    assert (folder / "metrics.csv").is_file()
    assert list((folder / "pictures").glob("test-*.png"))
    errors = json.loads((folder / "result.json").read_text())["errors"]
    on_proposals = ("fast_rcnn", "sppnet", "rcnn")
    assert ("stages" in errors) == (family in ("faster_rcnn", *on_proposals))
    assert ("recall_by_anchor_iou" in errors) == (family not in on_proposals)
    assert {"errors.png", "pr_curves.png", "confusion.png"} <= {p.name for p in (folder / "plots").iterdir()}
    truth = json.loads((folder / "ground_truth.json").read_text())
    assert len(truth["images"]) == 4
    again = evaluate(tool("evaluate", tmp_path / "eval", f"run={folder}", "data.limit={train: 8, val: 4, test: 4}"))
    assert again == pytest.approx(metrics, abs=1e-6)
    assert len(list((tmp_path / "eval" / "worst").glob("*.png"))) == 4
    file = folder / "checkpoints" / "last.ckpt"
    alone = tmp_path / "elsewhere.ckpt"
    alone.write_bytes(file.read_bytes())
    picture(tmp_path / "images" / "a.jpg", (50, 80))
    picture(tmp_path / "images" / "b.png", (300, 200), mode="RGBA")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"nothing")
    out = predict(tool("predict", tmp_path / "predict", f"run={alone}", f"source={tmp_path / 'images'}"))
    document = json.loads((out / "predictions.json").read_text())
    assert [Path(i["file_name"]).name for i in document["images"]] == ["a.jpg", "b.png"]
    assert len(list((out / "pictures").glob("*.png"))) == 2
    for found in document["annotations"]:
        x, y, w, h = found["bbox"]
        image = document["images"][found["image_id"] - 1]
        assert x >= 0
        assert y >= 0
        assert x + w <= image["width"] + 1e-3
        assert y + h <= image["height"] + 1e-3


def test_checkpoints_are_safe_and_hold_what_is_needed(trained: Path) -> None:
    for name in ("best", "last"):
        content = torch.load(trained / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["detlab"]["class_names"] == ["rectangle", "ellipse", "triangle"]
        assert content["detlab"]["config"]["model"]["_target_"] == "detlab.detectors.RetinaNet"


def test_checkpoints_of_another_layout_are_refused(trained: Path, tmp_path: Path) -> None:
    """Layouts 1 and 2 name classes in rooms that no longer exist."""
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    content["detlab"]["layout"] = 2
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ConfigError, match=r"old.ckpt was written by detlab .* with its classes elsewhere; train it"):
        detlab.load(tmp_path / "old.ckpt")


def test_anchors_in_torchvisions_steps_train_and_predict_a_padded_batch(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *small("retinanet"), "model.anchors.steps=divided")
    loaded = detlab.load(folder)
    assert loaded.detector.anchors.steps == "divided"
    picture(tmp_path / "images" / "a.jpg", (50, 80))
    picture(tmp_path / "images" / "b.png", (300, 200))
    out = predict(tool("predict", tmp_path / "out", f"run={folder}", f"source={tmp_path / 'images'}"))
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 2
    assert len(loaded.predict(sorted((tmp_path / "images").iterdir()), batch_size=2)) == 2


def test_fine_tuning_with_other_classes_keeps_what_fits(trained: Path, tmp_path: Path) -> None:
    root = simple_voc(tmp_path / "voc")
    for name in "abcd":
        file = root / "Annotations" / f"{name}.xml"
        file.write_text(file.read_text().replace("cat", "ellipse"))
    options = [o for o in small("retinanet") if not o.startswith(("data.side", "data.sizes", "data.counts"))]
    folder = run(tmp_path / "run", *options, "data=voc", f"data.root={root}", f"init_from={trained}", "optim.lr=0")
    old, new = (read_checkpoint(p / "checkpoints" / "last.ckpt") for p in (trained, folder))
    assert new.class_names == ("dog", "ellipse")
    same = [
        k
        for k in new.state
        if "num_batches" not in k and "running" not in k and k not in ("head.cls.weight", "head.cls.bias")
    ]
    assert all(torch.equal(new.state[k], old.state[k]) for k in same)
    rows_old = old.state["head.cls.weight"].unflatten(0, (-1, 3))
    rows_new = new.state["head.cls.weight"].unflatten(0, (-1, 2))
    assert torch.equal(rows_new[:, 1], rows_old[:, 1])  # ellipse
    assert not torch.equal(rows_new[:, 0], rows_old[:, 0])


def test_resuming_goes_on(tmp_path: Path) -> None:
    options = [*small("retinanet"), "test=false"]
    run(tmp_path, *options)
    before = json.loads((tmp_path / "budget.json").read_text())
    run(tmp_path, *options, "resume=true", "trainer.max_epochs=3")
    budget = json.loads((tmp_path / "budget.json").read_text())
    assert budget["seconds"] > before["seconds"]
    assert (before["images_seen"], budget["images_seen"]) == (4, 12)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 6


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["init_from=nowhere"], ConfigError, "nowhere is neither a run folder nor a checkpoint"),
        (["data=coco"], DataError, "data.root is not set"),
        (["data=coco", "data.root=/nowhere"], DataError, "data.root=/nowhere is not a folder"),
        (["data.resize=stretch"], Exception, "data.resize=stretch is not known"),
        (["model.backbone.weights=nowhere.pth"], ConfigError, "model.backbone.weights=nowhere.pth"),
    ],
)
def test_mistakes_end_before_work_starts(tmp_path: Path, overrides: list[str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path, *overrides)
    assert not (tmp_path / "checkpoints").exists()


def test_files_that_are_no_checkpoints_are_refused(trained: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    with pytest.raises(ConfigError, match="cut.ckpt is not a checkpoint that loads safely"):
        detlab.load(cut)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ConfigError, match="but not of detlab train"):
        detlab.load(tmp_path / "foreign.ckpt")
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    content["detlab"]["config"]["model"]["neck"]["_target_"] = "os.system"
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match="names os.system at model.neck, which is not trusted there"):
        detlab.load(tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match=r"has no checkpoints/.*best.ckpt"):
        detlab.load(tmp_path)


def test_evaluating_an_option_that_the_data_lacks_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no option data.roots"):
        evaluate(tool("evaluate", tmp_path, f"run={trained}", "data.roots=x"))


def test_views_in_testing_are_chosen_by_one_key(trained: Path, tmp_path: Path) -> None:
    limit = "data.limit={train: 8, val: 4, test: 4}"
    options = (limit, "detect.score_threshold=0.0")
    plain = evaluate(tool("evaluate", tmp_path / "a", f"run={trained}", *options))
    same = evaluate(tool("evaluate", tmp_path / "b", f"run={trained}", *options, "tta=none"))
    assert same == plain
    evaluate(tool("evaluate", tmp_path / "c", f"run={trained}", *options, "tta=multiscale"))
    one, many = (json.loads((tmp_path / d / "detections.json").read_text()) for d in "ac")
    assert one != many
    picture(tmp_path / "x.png", (70, 90))
    alone, mirrored = detlab.load(trained), detlab.load(trained, tta="flip")
    alone.detector.final.score_threshold = mirrored.detector.final.score_threshold = 0.0
    scores = [loaded.predict([tmp_path / "x.png"])[0]["scores"] for loaded in (alone, mirrored)]
    assert len(scores[0]) > 0
    assert not np.array_equal(*scores)
    with pytest.raises(ConfigError, match="no option detect.nms; the run's model has .*score_threshold"):
        evaluate(tool("evaluate", tmp_path / "d", f"run={trained}", "detect.nms=0.3"))


@pytest.mark.parametrize("name", [f.stem for f in sorted((config_dir() / "experiment").glob("*.yaml"))])
def test_every_experiment_runs(name: str, tmp_path: Path) -> None:
    """Papers' recipes run without their downloads, on small pictures in their data's format, on the CPU."""
    whole = compose_config("train", ["name=x", "paths.run_dir=/x", f"experiment={name}"])
    composed = plain_config(whole)
    backbone = composed["model"]["backbone"]
    extra = ["trainer=cpu", "model.backbone.weights=null"]
    extra += ["model.backbone.norm=bn"] if backbone["norm"] == "frozen_bn" else []
    extra += ["model.sampler.size=8"] if "size" in composed["model"].get("sampler", {}) else []
    extra += ["data.proposal_count=10"]
    dropped = composed["model"].get("proposals", {}).get("drop_crossing")
    extra += ["model.anchors.sizes=[8, 16, 32]"] if dropped else []  # some lie inside the small pictures
    extra += ["model.pool.crop=112"] if "crop" in composed["model"].get("pool", {}) else []
    extra += ["model.test_scales=[64, 96]"] if composed["model"].get("test_scales") else []
    if backbone["_target_"].endswith("VGG16"):  # gigabytes of fc6; stages need checkpoints
        staged = not composed["training"]["_target_"].endswith("Joint")
        extra += ["model/backbone=resnet18", "model.head.width=64"] if staged else ["callbacks.checkpoint=null"]
    if backbone["_target_"].endswith("Darknet"):  # 20 to 40 million parameters
        extra += ["model/backbone=resnet18", "callbacks.checkpoint=null"]
    extra += ["data.canvas=[64, 64]"] if composed["data"].get("canvas") else []
    extra += ["multiscale.sizes=[32, 64]"] if composed.get("multiscale") else []
    extra += small_data(composed["data"], tmp_path)
    folder = run(tmp_path / "run", f"experiment={name}", "debug=fast", *extra)
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def small_data(data: dict[str, Any], folder: Path) -> list[str]:
    """Overrides that put a small data set of the same format in place of an experiment's own."""
    kind = data["_target_"].rsplit(".", 1)[-1]
    if kind == "shapes":
        return []
    if kind == "coco":
        root = simple_coco(folder / "coco")
        files = "data.annotations={train: train.json, val: val.json, test: null}"
        return [f"data.root={root}", files, "data.images={train: images, val: images, test: null}", "data.size=64"]
    root = simple_voc(folder / "voc")
    lists = root / "ImageSets" / "Main"
    for split, name in (data.get("sets") or {"test": "test"}).items():
        if name and not (lists / f"{name}.txt").is_file():
            (lists / f"{name}.txt").write_text("a\nb\n" if split == "train" else "c\nd\n")
    return [f"data.root={root}", "data.size=64"]


@pytest.mark.parametrize(
    ("overrides", "file"),
    [
        (["callbacks=ema"], "checkpoints/best.ckpt"),
        (["callbacks=early_stop"], "checkpoints/best.ckpt"),
        (["debug=limit", "trainer.max_epochs=1"], "result.json"),
        (["debug=profiler"], "fit-profile.txt"),
        (["optim=sgd", "lr_schedule=multistep", "trainer.accumulate_grad_batches=2"], "result.json"),
        (["trainer.precision=bf16-mixed"], "result.json"),
        (["logger=default"], "tensorboard"),
        (["model.backbone.frozen_stages=2", "augment=ssd"], "result.json"),
        (["tta=multiscale"], "result.json"),
    ],
)
def test_options_of_a_run(overrides: list[str], file: str, tmp_path: Path) -> None:
    debug = [] if any(o.startswith("debug=") for o in overrides) else ["debug=fast"]
    choices = [o for o in small("retinanet") if not o.startswith("debug=")]
    if "debug=limit" in overrides:
        choices.append("data.counts={train: 20, val: 20, test: 20}")
    folder = run(tmp_path, *choices, *debug, *overrides)
    assert (folder / file).exists(), sorted(p.name for p in folder.iterdir())


def test_a_not_finite_loss_stops_the_run_and_says_whose_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detlab.detectors import RetinaNet
    from detlab.training.callbacks.nonfinite import NonFiniteLossError

    honest = RetinaNet.loss

    def broken(self: RetinaNet, batch: Any, features: Any = None) -> dict[str, torch.Tensor]:
        losses = honest(self, batch, features)
        return {k: v * float("nan") for k, v in losses.items()} if self.training else losses

    monkeypatch.setattr(RetinaNet, "loss", broken)
    with pytest.raises(NonFiniteLossError, match=r"not finite at step 0 \(image ids"):
        run(tmp_path, *small("retinanet"))
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "detlab.commands.train", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_sweep_with_wandb_offline_and_an_option_of_ones_own(tmp_path: Path) -> None:
    """-m, --config-dir, a backbone in one file and one YAML, and W&B without asking."""
    (tmp_path / "conf" / "model" / "backbone").mkdir(parents=True)
    (tmp_path / "conf/model/backbone/mine.yaml").write_text("_target_: my_backbone.Mine\nnorm: gn\n")
    (tmp_path / "my_backbone.py").write_text(
        "from detlab.model.backbones import ResNet\n\nclass Mine(ResNet):\n    def __init__(self, **k):\n"
        "        super().__init__(depth=18, **k)\n"
    )
    done = command(
        "--config-dir", str(tmp_path / "conf"), "-m", "model/backbone=mine", "seed=0,1", "logger=wandb",
        *small("retinanet"), f"hydra.sweep.dir={tmp_path / 'sweep'}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for job in "01":
        folder = tmp_path / "sweep" / job
        assert (folder / "result.json").is_file()
        assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    with pytest.raises(ConfigError, match=r"my_backbone.Mine at model.backbone.*trust=\[my_backbone\]"):
        detlab.load(tmp_path / "sweep" / "0")


def test_two_processes_on_the_cpu(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = command(*small("faster_rcnn"), "trainer=ddp_cpu", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["processes"]) == ("finished", 2)
    assert "4 = 2 x 2 processes" in done.stdout
    assert (folder / "result.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


ON_GRID = ["data.proposals=grid", "data.proposal_count=2000", "model/matcher=roi", "model.sampler.size=128"]
LONGER = ["lr_schedule=cosine", "trainer.max_epochs=160"]  # boxes that offsets alone pull in settle late
PLACED_WELL = ["model/box_loss=giou", "model.box_loss.weight=10", "model.matcher.positive=0.6"]
TINY = ["data.side=64", "data.size=64", "data.sizes=[14, 30]", "data.objects=[1, 3]"]  # cells of 32 px hold few boxes
GROUPS = ["model.neck.norm=gn", "model.head.norm=gn"]  # darknet's running statistics settle too late for 320 steps
OVERFIT = {
    "yolo": [
        *TINY,
        *GROUPS,
        *LONGER,
        "model.neck.widths=[32, 64, 128]",
        "model.anchors.shapes=[[14,14],[14,20],[20,14],[18,18],[22,22],[20,28],[28,20],[26,26],[30,30]]",
        "model/box_loss=giou",
    ],
    "yolov2": [
        *TINY,
        *GROUPS,
        *LONGER,
        "model.neck.width=256",
        "model.head.width=256",
        "model.anchors.shapes=[[14,14],[16,24],[24,16],[22,22],[28,28]]",
    ],
    "yolov1": [  # with batch norm .72: connected layers read how a batch differs from the running statistics
        *TINY,
        *LONGER,
        "model/neck=none",
        "model.backbone.norm=gn",
        "model.head.width=64",
        "model.head.dropout=0",
    ],
    "rpn": ["model.anchors.sizes=[16, 24, 32, 48, 64]", *PLACED_WELL, *LONGER],
    "retinanet": ["model.anchors.sizes=[16, 32, 64, 128, 256]"],
    "faster_rcnn": ["model.anchors.sizes=[16, 32, 64, 128, 256]"],
    "ssd": ["model.anchors.scales=[0.15, 0.3, 0.45, 0.6, 0.75]", *LONGER],
    "refinedet": ["model.anchors.sizes=[16, 32, 64, 128]", *LONGER],
    "fast_rcnn": [*ON_GRID, "model/pool=roi_align", *LONGER],
    "sppnet": [
        *ON_GRID,
        "model.neck.level=C2",
        "model.pool.grids=[6, 3, 2, 1]",
        "model.head.width=512",
        "model.head.dropout=0",
        *LONGER,
    ],
    "rcnn": [*ON_GRID, "model.pool.crop=32", "model.pool.context=4", "model.sampler.size=16"],
}


@pytest.mark.many
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", list(OVERFIT))
def test_eight_images_are_learned_by_heart(family: str, tmp_path: Path) -> None:
    """R-CNN, which sees 32 px of each box here, is judged by AP50; the RPN by AR@100."""
    folder = run(tmp_path, f"model={family}", "debug=overfit", "data.sizes=[20, 50]", *OVERFIT[family])
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert metrics[{"rcnn": "map_50", "rpn": "ar_100"}.get(family, "map")] > 0.9
