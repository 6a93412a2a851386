"""Prediction: what it reads, the class filter, and files that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import detlab
from detlab.commands.predict import predict
from detlab.config.compose import compose_config, plain_config
from detlab.data.formats.yolo import yolo
from detlab.data.images import ImageError
from detlab.detectors.runtimes import InRuntime, Shape
from detlab.errors import ConfigError
from detlab.runs.loading import Loaded
from detlab.tensors.structures import Batch
from detlab.training.fit import train
from tests.data.writing import picture, read

OPTIONS = [
    "model=retinanet",
    "debug=fast",
    "trainer.precision=32-true",
    "data.side=64",
    "data.size=64",
    "data.sizes=[14, 30]",
    "data.counts={train: 4, val: 2, test: 2}",
    "data.batch_size=2",
    "model/neck=fpn_small",
    "model.head.width=16",
    "model.head.depth=1",
    "model.detect.score_threshold=0.0",  # an untrained detector's scores are all about 0.01
    "data.cache_dir=null",
    "callbacks.progress=null",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(plain_config(compose_config("train", ["name=test", f"paths.run_dir={folder}", *OPTIONS])))
    return folder


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Loaded:
    return detlab.load(trained)


def predicted(trained: Path, out: Path, **options: Any) -> Path:
    config = plain_config(compose_config("predict", [f"paths.run_dir={out}", f"run={trained}", "source=x"]))
    return predict(config | options)


def test_every_kind_of_input_gives_the_same(loaded: Loaded, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (70, 90))
    image = Image.open(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = loaded.predict([path])[0]
    assert len(expected["boxes"]) > 0
    assert expected["file"] == str(path)
    kinds: list[Any] = [path, str(path), str(tmp_path), f"{tmp_path}/*.p?g", image, array, tensor, [image], array[None]]
    for kind in [*kinds, iter([tensor]), image.convert("RGBA"), np.asfortranarray(array)]:
        results = loaded.predict(kind)
        assert len(results) == 1
        assert np.allclose(results[0]["boxes"], expected["boxes"], atol=1e-3)
        assert results[0]["file"] in (None, str(path))


def test_mixed_lists_folders_and_patterns_keep_their_order(loaded: Loaded, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.webp", "sub/d.tif", "e.gif"):
        picture(tmp_path / name)
    (tmp_path / "notes.md").write_text("x")
    grey = np.zeros((30, 50), np.uint8)
    found = loaded.predict([tmp_path / "sub", grey, f"{tmp_path}/*"], batch_size=2)
    names = [Path(item["file"]).name if item["file"] else None for item in found]
    assert names == ["c.webp", "d.tif", None, "a.jpg", "b.png", "e.gif", "c.webp", "d.tif"]
    assert loaded.predict([]) == []


def test_pictures_as_shown_by_their_exif(loaded: Loaded, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = picture(tmp_path / "a.png", (40, 90), exif=exif)
    by_path, by_image = loaded.predict([path, Image.open(path)])
    assert by_path["boxes"][:, 3].max() > 60  # it is shown upright, 90 px high
    assert np.array_equal(by_path["boxes"], by_image["boxes"])


def test_mistakes_name_the_file_or_the_value(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "gone.jpg", r"images=.*/gone\.jpg is not there; give an image, a folder of images, a pattern"),
        ([str(tmp_path / "none*.jpg")], r"images=.*/none\*\.jpg is a pattern that no image matches; give an image"),
        (tmp_path / "empty", r"images=.*/empty is a folder without images; give an image"),
    ):
        with pytest.raises(ConfigError, match=message):
            loaded.predict(source)
    with pytest.raises(ImageError, match=r"broken\.jpg: not a readable image"):
        loaded.predict(tmp_path / "broken.jpg")
    for pixels, got in (
        (np.zeros((4, 4, 3)), r"got torch\.float64 of shape \(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got torch\.uint8 of shape \(4, 4, 4\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"got torch\.uint8 of shape \(4, 4, 3\)"),
        ([3], r"got a int"),
    ):
        with pytest.raises(ValueError, match=rf"predict\(\) takes paths, PIL images, .*; {got}"):
            loaded.predict(pixels)


def test_only_the_wanted_classes(loaded: Loaded, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (70, 90))
    found = loaded.predict(path)[0]
    assert set(found["names"]) == {"rectangle", "ellipse", "triangle"}
    some = loaded.predict(path, classes=["triangle", "ellipse"])[0]
    keep = found["labels"] >= 1
    assert np.array_equal(some["scores"], found["scores"][keep])
    assert set(some["names"]) == {"ellipse", "triangle"}
    assert set(loaded.predict(path, classes="ellipse")[0]["names"]) == {"ellipse"}
    for classes, message in ((["cat"], "names 'cat', which the model lacks; it has rectangle"), ([], "names no class")):
        with pytest.raises(ConfigError, match=message):
            loaded.predict(path, classes=classes)


def test_a_strip_is_not_blown_up_for_the_network(loaded: Loaded) -> None:
    """This run has no max_size: 3000x20 px by the shorter side alone were 9600x64."""
    assert loaded.resize.target((20, 3000)) == (3, 512)
    assert loaded.resize.target((40, 60)) == (64, 96)
    batch, _ = next(iter(loaded.batches([np.zeros((20, 3000, 3), np.uint8)], 1)))
    assert batch.images.shape[-1] == 512


def test_files_for_other_tools(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    for name in ("a.png", "sub/a.jpg", "sub/a.png"):
        picture(images / name, (40, 60))
    (images / "broken.jpg").write_bytes(b"nothing")
    out = predicted(
        trained, tmp_path / "out", source=str(images), save_txt=True, score_threshold=0.0, classes=["ellipse"]
    )
    assert "broken.jpg: not a readable image" in capsys.readouterr().out
    document = json.loads((out / "predictions.json").read_text())
    assert [image["id"] for image in document["images"]] == [1, 2, 3]
    assert [Path(image["file_name"]).name for image in document["images"]] == ["a.png", "a.jpg", "a.png"]
    assert [c["name"] for c in document["categories"]] == ["rectangle", "ellipse", "triangle"]
    ellipse = document["categories"][1]["id"]
    truth = COCO(str(out / "predictions.json"))
    assert len(truth.getAnnIds()) == len(document["annotations"]) > 0
    assert set(truth.getCatIds()) >= {row["category_id"] for row in document["annotations"]} == {ellipse}
    results = [
        {key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in document["annotations"]
    ]
    assert len(truth.loadRes(results).getAnnIds()) == len(results)

    labels = {path.relative_to(out / "labels").as_posix() for path in (out / "labels").rglob("*.txt")}
    assert labels == {"a.txt", "sub/a.txt", "sub/00003-a.txt"}
    (out / "labels" / "sub" / "00003-a.txt").unlink()
    (images / "sub" / "a.png").unlink()
    (images / "broken.jpg").unlink()
    images.rename(out / "images")
    data = yolo(root=str(out), size=40, cache_dir=None, min_box_size=0.0)
    boxes = read(data)["a.png"]
    by_json = [row["bbox"] for row in document["annotations"] if row["image_id"] == 1]
    assert data.class_names == ("rectangle", "ellipse", "triangle")
    assert {box[4] for box in boxes} == {"ellipse"}
    assert np.allclose(boxes[0][:2], by_json[0][:2], atol=0.01)
    assert np.allclose(boxes[0][2], by_json[0][0] + by_json[0][2], atol=0.01)


def test_only_drawn_detections_become_labels(trained: Path, tmp_path: Path) -> None:
    files = [str(picture(tmp_path / folder / "a.png")) for folder in ("x", "y")]
    out = predicted(trained, tmp_path / "out", source=files, save_txt=True, score_threshold=1.0)
    assert json.loads((out / "predictions.json").read_text())["annotations"]
    assert {path.name: path.read_text() for path in (out / "labels").iterdir()} == {"a.txt": "", "00002-a.txt": ""}
    plain = predicted(trained, tmp_path / "plain", source=f"{tmp_path}/?/a.png")
    assert {path.name for path in plain.iterdir()} == {"pictures", "predictions.json"}
    assert len(list((plain / "pictures").iterdir())) == 2


def same(folder: Path, other: Path) -> bool:
    """Whether two predictions hold the same boxes, each up to a thousandth."""
    rows = [json.loads((path / "predictions.json").read_text())["annotations"] for path in (folder, other)]
    keys = [sorted((row["image_id"], row["category_id"], *row["bbox"], row["score"]) for row in part) for part in rows]
    assert len(keys[0]) > 10
    return np.allclose(*keys, rtol=0, atol=0.05)


def test_what_another_runtime_detects_is_written_the_same_way(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling of the slow test below: torch stands in for the graph."""
    made = []

    def make(self: InRuntime, shape: Shape) -> Any:
        made.append(shape)
        return lambda images, sizes: self.detector.detect(Batch(images, sizes, sizes, torch.arange(len(images))))

    monkeypatch.setattr(InRuntime, "_made", make)
    pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    files = [str(picture(tmp_path / f"{name}.png", (40, 60))) for name in "abc"]
    torchs = predicted(trained, tmp_path / "torch", source=files, batch_size=2)
    assert same(predicted(trained, tmp_path / "out", source=files, batch_size=2, runtime="onnxruntime"), torchs)
    assert made == [(2, (64, 96))]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_another_runtime(runtime: str, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is in an extra")
    files = [str(picture(tmp_path / f"{name}.png", (40, 60))) for name in "abc"]
    torchs = predicted(trained, tmp_path / "torch", source=files, batch_size=2)
    assert same(predicted(trained, tmp_path / "out", source=files, batch_size=2, runtime=runtime), torchs)


def test_weights_in_bfloat16_are_cast_once(trained: Path, loaded: Loaded, tmp_path: Path) -> None:
    """As if autocast had cast them at every call."""
    path = picture(tmp_path / "a.png", (40, 60))
    cast = detlab.load(trained, precision="bf16")
    assert {p.dtype for p in cast.detector.backbone.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        expected = loaded.detector.detect(next(iter(loaded.batches([path], 1)))[0])
    found = cast.predict(path)[0]
    assert 0 < len(found["scores"]) == int(expected.real.sum())
    assert np.array_equal(found["scores"], expected.scores[expected.real].numpy())
    with pytest.raises(ConfigError, match="precision=fp8 is not known; use one of fp32, bf16"):
        detlab.load(trained, precision="fp8")
