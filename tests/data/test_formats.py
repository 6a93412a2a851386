"""COCO, VOC, YOLO and BCCD folders: boxes in one form, and every kind of dirt found, named and counted."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detlab.data.audit import RULES
from detlab.data.datamodule import DetectionData
from detlab.data.formats import bccd as bccd_module
from detlab.data.formats.bccd import bccd
from detlab.data.formats.coco import coco
from detlab.data.formats.voc import voc
from detlab.data.formats.yolo import yolo
from detlab.errors import DataError
from tests.data.writing import coco_json, picture, row, simple_coco, simple_voc, simple_yolo, voc_xml

LOADING = {"size": 40, "cache_dir": None, "batch_size": 2}


def coco_data(root: Path, **options: Any) -> DetectionData:
    files = {"train": "train.json", "val": "val.json" if (root / "val.json").is_file() else None, "test": None}
    images = dict.fromkeys(files, "images")
    return coco(root=str(root), annotations=files, images=images, **(LOADING | options))


def found(data: DetectionData) -> dict[str, int]:
    data.setup()
    counts: dict[str, int] = {}
    for finding in data.report.findings.values():
        counts[finding.rule] = counts.get(finding.rule, 0) + finding.count
    return counts


def test_coco_boxes_labels_and_classes(tmp_path: Path) -> None:
    data = coco_data(simple_coco(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.category_ids == (3, 6)
    first = data.records("train")[0]
    assert first.boxes.tolist() == [[5, 5, 25, 20]]
    assert first.labels.tolist() == [1]
    assert len(data.records("val")) == 3
    assert data.ground_truth("val").image_ids.tolist() == [4, 5, 6]


def test_voc_counts_from_one(tmp_path: Path) -> None:
    simple_voc(tmp_path)
    data = voc(root=str(tmp_path), sets={"train": "train", "val": "val"}, **LOADING)
    assert data.class_names == ("cat", "dog")
    assert data.records("train")[0].boxes.tolist() == [[0, 0, 10, 20]]
    zero = voc(root=str(tmp_path), sets={"train": "train", "val": "val"}, one_based=False, **LOADING)
    assert zero.records("train")[0].boxes.tolist() == [[1, 1, 10, 20]]


def test_yolo_shares_become_pixels(tmp_path: Path) -> None:
    for root in (simple_yolo(tmp_path), tmp_path / "data.yaml"):
        data = yolo(root=str(root), **LOADING)
        assert data.class_names == ("cat", "dog")
        assert data.records("train")[0].boxes.tolist() == [[15, 15, 45, 25]]
        assert data.records("train")[0].labels.tolist() == [1]


DIRTY_BOXES = {
    "degenerate box": [10, 10, 0, 5],
    "box outside the image": [200, 200, 5, 5],
    "box across the border": [-4, 3, 20, 20],
    "malformed box": [1, 2, 3],
    "unknown class": [1, 1, 5, 5],
    "duplicate box": [5, 5, 20, 15],
    "annotation without image": [1, 1, 5, 5],
    "crowd box": [1, 1, 30, 30],
}


def test_every_dirty_box_is_counted_and_named(tmp_path: Path) -> None:
    root = simple_coco(tmp_path)
    rows = [row(1, 1, [5, 5, 20, 15])]
    for number, (rule, box) in enumerate(DIRTY_BOXES.items(), start=10):
        changes: dict[str, Any] = {
            "unknown class": {"category_id": 99},
            "annotation without image": {"image_id": 77},
            "crowd box": {"iscrowd": 1},
        }.get(rule, {})
        rows.append(row(number, 1, box) | changes)
    rows.append(row(40, 1, [float("nan"), 1, 2, 2]))
    images = [{"id": i + 1, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(3)]
    coco_json(root / "train.json", images, rows)
    data = coco_data(root)
    counts = found(data)
    assert counts.pop("malformed box") == 2
    assert counts.pop("image without boxes") == 2
    assert counts.pop("class without boxes") == 1  # the dog
    assert counts == dict.fromkeys(set(DIRTY_BOXES) - {"malformed box"}, 1)
    kept = data.records("train")[0]
    assert kept.boxes.tolist() == [[5, 5, 25, 20], [0, 3, 16, 23], [1, 1, 31, 31]]
    assert kept.crowd.tolist() == [False, False, True]
    examples = [text for finding in data.report.findings.values() for text in finding.examples]
    assert any("77" in text for text in examples)
    with pytest.raises(DataError, match=r"data\.on_error"):
        coco_data(root, on_error="raise").setup()


def test_every_dirty_image_is_counted_and_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    picture(images / "fine.png")
    picture(images / "gray.png", mode="L")
    picture(images / "rgba.png", mode="RGBA")
    picture(images / "deep.png", mode="I;16")
    picture(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:700])
    (images / "noise.png").write_bytes(b"\x89PNG\r\n" + b"\0" * 50)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture(images / "turned.jpg", size=(60, 40), exif=exif)  # shown as 40 x 60
    picture(images / "raw.jpg", size=(40, 60), exif=exif)  # annotated as stored
    picture(images / "other.png", size=(50, 50))
    names = ["fine.png", "gray.png", "rgba.png", "deep.png", "cut.jpg", "noise.png", "turned.jpg", "raw.jpg"]
    names += ["other.png", "gone.png", "../../escape.png", "fine.png"]
    ids = [*range(1, len(names)), 1]
    rows = [row(i, i, [5, 5, 20, 15]) for i in ids[:-1]]
    coco_json(
        tmp_path / "train.json",
        [{"id": i, "file_name": n, "height": 40, "width": 60} for i, n in zip(ids, names, strict=True)],
        rows,
    )
    data = coco_data(tmp_path, val_fraction=0.2)
    assert found(data) == {
        "grayscale image": 1,
        "alpha image": 1,
        "16-bit image": 1,
        "unreadable image": 2,
        "EXIF-rotated image": 1,
        "EXIF ignored": 1,
        "image size differs from annotation": 1,
        "missing image": 1,
        "image outside the root": 1,
        "duplicate image id": 1,
        "class without boxes": 1,
    }
    usable = {r.name for split in ("train", "val") for r in data.records(split)}
    assert {Path(n).name for n in usable} == {"fine.png", "gray.png", "rgba.png", "deep.png", "turned.jpg", "raw.jpg"}
    for split in ("train", "val"):
        for sample in data.dataset(split):
            assert sample.image.shape == (3, 40, 60)
            assert sample.image.float().std() > 5


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path: Path) -> None:
    from detlab.data.images import read_image

    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, 0].tolist() == [0, 100, 255]


def test_dirty_voc_and_yolo(tmp_path: Path) -> None:
    root = simple_voc(tmp_path / "voc")
    voc_xml(root / "Annotations" / "a.xml", [("cat", (5, 5, 5, 9)), ("cat", (5, 5, 4, 9)), ("cat", ("x", 1, 2, 3))])
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nmissing\n../../etc\n")
    counts = found(voc(root=str(root), sets={"train": "train", "val": "val"}, **LOADING))
    assert counts["malformed box"] == 1
    assert counts["degenerate box"] >= 1
    assert counts["missing annotation"] == 1
    assert counts["image outside the root"] == 1
    root = simple_yolo(tmp_path / "yolo")
    (root / "labels/train/0.txt").write_text("7 .5 .5 .2 .2\n0 nan .5 .2 .2\n0 .5\n0 .5 .5 0 .2\n\n1 .5 .5 .5 .5\n")
    counts = found(yolo(root=str(root), **LOADING))
    assert counts == {"unknown class": 1, "malformed box": 2, "degenerate box": 1, "class without boxes": 1}


def test_a_class_filter_keeps_the_order_asked_for(tmp_path: Path) -> None:
    data = coco_data(simple_coco(tmp_path), classes=["dog"])
    assert data.class_names == ("dog",)
    assert data.category_ids == (6,)
    assert [r.labels.tolist() for r in data.records("train")] == [[0], [], [0]]
    assert coco_data(tmp_path, classes=["dog", "cat"]).records("train")[0].labels.tolist() == [0]
    with pytest.raises(DataError, match="data.classes names 'cow'.*cat, dog"):
        coco_data(tmp_path, classes=["cow"]).setup()


def test_a_seeded_share_becomes_val(tmp_path: Path) -> None:
    root = simple_coco(tmp_path, count=20)
    (root / "val.json").unlink()
    first, again, other = (coco_data(root, val_fraction=0.3, split_seed=s) for s in (1, 1, 2))
    names = [[r.name for r in d.records("val")] for d in (first, again, other)]
    assert len(names[0]) == 3
    assert names[0] == names[1] != names[2]
    assert not set(names[0]) & {r.name for r in first.records("train")}
    with pytest.raises(DataError, match="data.val_fraction=0.0"):
        coco_data(root, val_fraction=0.0).setup()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: coco_data(p / "nowhere"), r"data.root=.*nowhere is not a folder"),
        (lambda p: coco(root=None, annotations={"train": "x"}, images={}, **LOADING), "data.root is not set"),
        (lambda p: coco(root="", annotations={"train": "x"}, images={}, **LOADING), "data.root is not set"),
        (lambda p: yolo(root=" ", **LOADING), "data.root is not set"),
        (lambda p: coco(root=str(p), annotations={"train": "no.json"}, images={}, **LOADING), "data.annotations.train"),
        (lambda p: yolo(root=str(p), **LOADING), "data.yaml"),
        (lambda p: voc(root=str(p), sets={"train": "train"}, **LOADING), "data.sets.train"),
        (lambda p: coco_data(p, on_error="ignore"), "data.on_error=ignore is not known"),
    ],
)
def test_mistakes_name_their_option(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(tmp_path).setup()


def test_json_of_wrong_types_is_refused_in_a_sentence(tmp_path: Path) -> None:
    simple_coco(tmp_path)
    for text in ("[]", "{", '{"images": 3}', '{"images": [{"id": "x"}], "annotations": [], "categories": []}'):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(DataError, match=r"train\.json|data\.annotations"):
            coco_data(tmp_path).setup()


def test_bccd_downloads_and_checks_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive comes from a local address in GitHub's layout; a changed file is refused."""
    folder = simple_voc(tmp_path / "BCCD")
    (folder / "ImageSets/Main/test.txt").write_text("d\n")
    archive = tmp_path / "master.zip"
    digests = {}
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                inner = file.relative_to(folder)
                bundle.write(file, f"BCCD_Dataset-master/BCCD/{inner}")
                digests[str(inner)] = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(bccd_module, "manifest", lambda: digests)
    options = {"size": 40, "url": archive.as_uri()}
    data = bccd(cache_dir=str(tmp_path / "cache"), **options)
    data.prepare_data()
    assert [len(data.records(s)) for s in ("train", "val", "test")] == [2, 2, 1]
    digests["Annotations/a.xml"] = "0" * 64
    with pytest.raises(DataError, match="1 files of .* differ from the manifest .*data.root=PATH"):
        bccd(cache_dir=str(tmp_path / "other"), **options).prepare_data()
    assert not (tmp_path / "other" / "bccd").exists()


def test_bccd_without_network_says_what_to_do(tmp_path: Path) -> None:
    data = bccd(cache_dir=str(tmp_path), url=(tmp_path / "nothing.zip").as_uri())
    with pytest.raises(DataError, match=r"could not download .*nothing.zip.*data.root=PATH"):
        data.prepare_data()


def test_the_shipped_manifest_is_of_the_whole_data_set() -> None:
    files = bccd_module.manifest()
    assert sum(name.startswith("JPEGImages/") for name in files) == 364
    assert all(len(digest) == 64 for digest in files.values())


def test_the_real_photographs(bccd_root: Path) -> None:
    """364 images, and two boxes without area, each reported by its file."""
    data = bccd(root=str(bccd_root), size=480, cache_dir=None)
    data.setup()
    assert [len(data.records(s)) for s in ("train", "val", "test")] == [205, 87, 72]
    assert data.class_names == ("Platelets", "RBC", "WBC")
    degenerate = [f for f in data.report.findings.values() if f.rule == "degenerate box"]
    assert sum(f.count for f in degenerate) == 2
    named = " ".join(text for f in degenerate for text in f.examples)
    assert "BloodImage_00338" in named
    assert "BloodImage_00343" in named


def test_shares_keep_each_class(tmp_path: Path) -> None:
    """90 images of cats and 10 of dogs: every split has its tenth of dogs, and no image stands in two."""
    from detlab.data.splits import stratified
    from tests.data.writing import labelled

    records = [labelled(i, [1] if i % 10 == 0 else [0]) for i in range(100)]
    for seed in range(3):
        parts = stratified(records, [70, 10, 20], seed)
        assert [len(p) for p in parts] == [70, 10, 20]
        assert sorted(i for part in parts for i in part) == list(range(100))
        assert [sum(i % 10 == 0 for i in part) for part in parts] == [7, 1, 2]
    assert stratified(records, [70, 10, 20], 0) == stratified(records, [70, 10, 20], 0)
    assert stratified(records, [70, 10, 20], 0) != stratified(records, [70, 10, 20], 1)


def test_val_and_test_are_drawn_where_they_are_missing(tmp_path: Path) -> None:
    root = simple_coco(tmp_path, count=40)
    (root / "val.json").unlink()
    data = coco_data(root, val_fraction=0.1, test_fraction=0.2)
    names = [{r.name for r in data.records(s)} for s in ("train", "val", "test")]
    assert [len(n) for n in names] == [14, 2, 4]
    assert len(set.union(*names)) == 20
    with pytest.raises(DataError, match="leaves train empty; .* smaller fractions"):
        coco_data(root, val_fraction=0.5, test_fraction=0.5).setup()
    with pytest.raises(DataError, match="data.test_fraction=1.5 is no share"):
        coco_data(root, test_fraction=1.5).setup()


def test_findings_are_known_by_image(tmp_path: Path) -> None:
    """Of boxes that a format cannot read, and of those that the common checks drop."""
    coco_root = simple_coco(tmp_path / "coco")
    images = [{"id": i + 1, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(2)]
    rows = [row(1, 1, [1, 2, 3]), row(2, 1, [5, 5, 20, 15]), row(3, 2, [5, 5, 0, 9]), row(4, 2, [5, 5, 20, 15], 99)]
    coco_json(coco_root / "train.json", images, rows)
    voc_root = simple_voc(tmp_path / "voc")
    voc_xml(voc_root / "Annotations" / "a.xml", [("cat", ("x", 1, 9, 9)), ("cat", (0, 1, 9, 9))])
    yolo_root = simple_yolo(tmp_path / "yolo")
    (yolo_root / "labels" / "train" / "0.txt").write_text("1 0.5 0.5\n7 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n")
    for data, expected in (
        (coco_data(coco_root), {"0.png": {"malformed box"}, "1.png": {"degenerate box", "unknown class"}}),
        (voc(root=str(voc_root), sets={"train": "train", "val": "val"}, **LOADING), {"a.jpg": {"malformed box"}}),
        (yolo(root=str(yolo_root), **LOADING), {"0.jpg": {"malformed box", "unknown class"}}),
    ):
        data.setup()
        by_name = {file.name: set(rules) for file, rules in data.report.by_file.items()}
        assert {name: rules & by_name[name] for name, rules in expected.items()} == expected


def test_the_docs_list_every_rule_of_the_audit() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.endswith(("| yes |", "| no |"))]
    assert rows == [[name, rule.action, "yes" if rule.error else "no"] for name, rule in RULES.items()]
