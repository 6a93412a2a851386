"""R-CNN's and SPPnet's stages: what the SVMs and regressors see, and that the result scores by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import detlab
from detlab import build_detector
from detlab.commands.evaluate import evaluate
from detlab.errors import ConfigError
from detlab.model.coders import BoxCoder
from detlab.model.linear import LinearModel
from detlab.runs.checkpoints import read_checkpoint
from detlab.tensors.structures import Batch, Proposals
from detlab.training.feature_cache import ImageCache
from detlab.training.stages import LinearSVM
from detlab.training.stages.linear_svm import Regions, describe_batch, layers
from tests.training.stages.running import interrupted, run, tool

pytest.importorskip("sklearn", reason="scikit-learn is an optional extra: pip install 'detlab[svm]'")
SPP = [
    "model=sppnet",
    "model.head.width=32",
    "model.sampler.size=16",
    "model/detect=rcnn",
    "data.proposals=grid",
    "data.proposal_count=60",
    "training=svm",
    "training.dtype=float32",
    "training.duplicate_iou=0.7",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("svm"), *SPP)


def models(folder: Path, stage: str) -> list[dict[str, Tensor]]:
    return [torch.load(folder / "stages" / stage / f"{k}.pt", weights_only=True) for k in range(3)]


def test_every_training_image_is_cached_once(trained: Path) -> None:
    files = sorted(p.name for p in (trained / "stages/2-features/train").iterdir())
    assert files == [f"{i}.{name}.npy" for i in range(1, 5) for name in ("features", "regions")]
    features, regions = (np.load(trained / f"stages/2-features/train/1.{n}.npy") for n in ("features", "regions"))
    assert features.shape == (len(regions), 32)
    assert (regions[:, 4] >= 0).any()
    assert (regions[:, 4] == -1).sum() > 30


def test_the_result_scores_by_the_svms_and_regresses_by_the_ridges(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "checkpoints" / "best.ckpt")
    assert checkpoint.config["model"]["cls_loss"]["_target_"] == "detlab.model.losses.HingeLoss"
    svms, ridges = models(trained, "3-svm"), models(trained, "4-ridge")
    assert torch.equal(checkpoint.state["head.cls.weight"], torch.stack([m["weight"] for m in svms]))
    features = torch.from_numpy(np.load(trained / "stages/2-features/train/1.features.npy"))
    detector = detlab.load(trained).detector
    prediction = detector.predict_from(features[None])
    scores = detector.criterion.cls_loss.scores(prediction.logits)[0]
    for label, (svm, ridge) in enumerate(zip(svms, ridges, strict=True)):
        torch.testing.assert_close(scores[:, label], torch.sigmoid(features @ svm["weight"] + svm["bias"]))
        offsets = prediction.deltas[0, :, label] / torch.tensor(detector.criterion.coder.weights)
        torch.testing.assert_close(offsets, features @ ridge["weight"].T + ridge["bias"], atol=1e-5, rtol=1e-4)


def test_the_network_below_is_the_fine_tuned_one(trained: Path) -> None:
    tuned = read_checkpoint(trained / "stages/1-fine-tune/checkpoints/best.ckpt").state
    result = read_checkpoint(trained / "checkpoints/last.ckpt").state
    own = [n for n in tuned if not n.startswith(("head.cls.", "head.box."))]
    assert all(torch.equal(tuned[n], result[n]) for n in own)


def test_the_result_is_an_ordinary_detector(trained: Path, tmp_path: Path) -> None:
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    assert evaluate(tool("evaluate", tmp_path, f"run={trained}")) == pytest.approx(metrics, abs=1e-6)
    assert json.loads((trained / "status.json").read_text())["state"] == "finished"


def test_finished_stages_are_not_repeated(trained: Path, tmp_path: Path) -> None:
    folder = interrupted(trained, tmp_path / "run", "stages/3-svm", "checkpoints")
    kept = {p: p.stat().st_mtime_ns for p in [*folder.glob("stages/[12]-*/*/*"), *folder.glob("stages/4-ridge/*")]}
    run(folder, *SPP, "resume=true")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    a, b = (read_checkpoint(f / "checkpoints/best.ckpt").state for f in (trained, folder))
    assert all(torch.equal(a[n], b[n]) for n in a)


def regions(tmp_path: Path, boxes: list[list[float]], labels: list[int], features: list[list[float]]) -> Regions:
    cache = ImageCache(tmp_path, ("features", "regions"))
    rows = np.column_stack([np.array(boxes, np.float32), np.array(labels, np.float32)])
    cache.keep(7, {"features": np.array(features, np.float16), "regions": rows})
    return Regions(cache, 7, torch.tensor(boxes), torch.tensor(labels))


def test_negatives_and_pairs_by_hand(tmp_path: Path) -> None:
    """Boxes: truth of class 0, truth of class 1 elsewhere, IoU 0.8 with the first, 0.25, and 0."""
    boxes = [[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 8], [0, 0, 5, 5], [30, 30, 40, 40]]
    image = regions(tmp_path, boxes, [0, 1, -1, -1, -1], [[float(i)] for i in range(5)])
    assert image.overlap(0).tolist() == pytest.approx([1, 0, 0.8, 0.25, 0])
    assert image.overlap(2).tolist() == [0] * 5
    recipe = LinearSVM(fine_tune={"max_epochs": None, "lr": None})
    assert recipe._negatives(image, 0).tolist() == [1, 3, 4]  # another class's truth is a negative
    assert recipe._negatives(image, 2).tolist() == [0, 1, 2, 3, 4]  # of a class the image lacks, all are
    without = LinearSVM(fine_tune={"max_epochs": None, "lr": None}, duplicate_iou=0.7)
    assert without._negatives(image, 2).tolist() == [0, 1, 3, 4]
    features, offsets = recipe._pairs(image, 0)
    assert features.flatten().tolist() == [0, 2]
    torch.testing.assert_close(offsets[1], torch.tensor([0, 0.125, 0, np.log(10 / 8)]).float())
    assert recipe._pairs(image, 2)[0].shape == (0, 1)


def test_offsets_get_the_coders_weights() -> None:
    ridges = LinearModel(torch.zeros(2, 4, 3), torch.tensor([[0.1, 0, 0, 0], [0, 0, 0.2, 0]]))
    found = layers(LinearModel(torch.zeros(2, 3), torch.zeros(2)), ridges, {"coder": {"weights": [10.0, 10, 5, 5]}})
    assert found["head.box.weight"].shape == (8, 3)
    deltas = found["head.box.bias"].view(2, 4)
    coder, box = BoxCoder(weights=(10, 10, 5, 5)), torch.tensor([[0.0, 0, 10, 10]])
    assert coder.decode(box, deltas[:1])[0].tolist() == pytest.approx([1, 0, 11, 10])
    assert coder.decode(box, deltas[1:])[0, 2].item() == pytest.approx(5 + 5 * np.exp(0.2))


def test_images_without_boxes_or_proposals(empty_batch: Batch) -> None:
    detector = build_detector(["model=sppnet", "model.head.width=32"], num_classes=3).eval()
    none = Proposals(torch.zeros(2, 3, 4), torch.full((2, 3), -1.0))
    with torch.no_grad():
        found = describe_batch(detector, empty_batch._replace(proposals=none), dtype=torch.float16)
    assert [f["features"].shape for f in found] == [(0, 32)] * 2
    assert [f["regions"].shape for f in found] == [(0, 5)] * 2


def test_mistakes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="training.dtype=int8 is not known"):
        LinearSVM(fine_tune={}, dtype="int8")
    monkeypatch.setattr("detlab.training.stages.linear_svm.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"training=svm needs scikit-learn; pip install 'detlab\[svm\]'"):
        run(tmp_path, *SPP)


def test_a_stage_that_fails_is_named_in_the_status(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(trained, tmp_path / "run", "stages/3-svm")
    monkeypatch.setattr("detlab.model.linear.svm.fit_svm", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, *SPP, "resume=true")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["stage"]) == ("failed", "3-svm")
    assert status["reason"] == "ZeroDivisionError: division by zero"
