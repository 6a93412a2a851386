"""Random input: always a clear error or a dropped item with a count, never a crash later or a loss that is NaN.

The default run takes few, fixed examples; the slow one many: `pytest -m many tests/data/test_fuzzing.py`.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detlab.config.compose import build_detector
from detlab.data.audit import AuditReport
from detlab.data.checks import check_boxes
from detlab.data.datamodule import DetectionData
from detlab.data.formats.coco import coco
from detlab.data.formats.voc import voc
from detlab.data.formats.yolo import yolo
from detlab.data.images import ImageError, inspect, read_image
from detlab.data.records import record
from detlab.errors import DataError
from detlab.tensors.structures import Batch, Targets
from tests.data.writing import picture, simple_voc, simple_yolo

FEW = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def fuzz(few: int, many: int) -> Callable[[Callable], Any]:
    """Both profiles of a property: a parametrised test whose second case is slow."""

    def wrap(check: Callable) -> Any:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.many)])
        def test(examples: int) -> None:
            settings(max_examples=examples, **FEW)(check)()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return wrap


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-100, 200),
    st.integers(-(10**400), 10**400),
    st.integers(-5, 70),
    st.sampled_from([0, -0.0, 1e-320, 1e308, 2**63, 2**31]),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.one_of(st.sampled_from(["0.png", "1.png", "../x.png", "/etc/passwd", "", ".", "nul\0"]), anything)


def usable(data: DetectionData) -> None:
    """The data set is refused in a sentence, or every batch of it is finite and within its canvas."""
    try:
        data.setup()
    except DataError:
        return
    finally:
        str(data.report).encode()  # can be printed
    "".join(data.class_names).encode()
    for batch in data.train_dataloader():
        height, width = batch.canvas
        real = batch.targets.boxes[batch.targets.real]
        assert torch.isfinite(real).all()
        assert (real[:, 2:] > real[:, :2]).all()
        assert (real >= 0).all()
        assert (real <= torch.tensor([width, height, width, height])).all()
        assert ((batch.targets.labels >= -1) & (batch.targets.labels < data.num_classes)).all()
        assert torch.isfinite(batch.targets.area).all()


LOADING = {"size": 32, "cache_dir": None, "batch_size": 2, "num_workers": 0}


@fuzz(40, 2000)
@given(
    images=st.lists(
        st.fixed_dictionaries(
            {"id": st.one_of(st.integers(1, 3), anything), "file_name": names},
            optional={"height": st.one_of(st.just(40), anything), "width": st.one_of(st.just(60), anything)},
        ),
        max_size=3,
    ),
    annotations=st.lists(
        st.fixed_dictionaries(
            {
                "image_id": st.one_of(st.integers(1, 3), anything),
                "category_id": st.one_of(st.integers(1, 2), anything),
                "bbox": st.one_of(st.lists(numbers, min_size=4, max_size=4), anything),
            },
            optional={"id": anything, "area": anything, "iscrowd": anything},
        ),
        max_size=6,
    ),
    categories=st.one_of(
        st.just([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]),
        st.lists(st.fixed_dictionaries({"id": anything, "name": anything}), max_size=3),
        anything,
    ),
)
def test_coco_files(images: Any, annotations: Any, categories: Any) -> None:
    """Wrong types, missing keys, numbers beyond any range."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("0.png", "1.png"):
            picture(root / name)
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / "all.json").write_text(json.dumps(document))
        files = {"train": "all.json", "val": "all.json", "test": None}
        usable(coco(root=folder, annotations=files, images=dict.fromkeys(files), **LOADING))


@fuzz(25, 1000)
@given(content=st.one_of(st.binary(max_size=60), anything.map(lambda v: json.dumps(v).encode()), st.just(b"[" * 10**5)))
def test_bytes_that_are_no_coco_file(content: bytes) -> None:
    """Random bytes and random json."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "all.json").write_bytes(content)
        files = {"train": "all.json", "val": None, "test": None}
        with pytest.raises(DataError):
            coco(root=folder, annotations=files, images=dict.fromkeys(files), **LOADING).setup()


xml_texts = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "1e999", "", " ", "5", "30", "-3", "1_0", "\u0663", "0x10"]),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="<>&"), max_size=6),
    st.integers(-(10**30), 10**30).map(str),
)


@fuzz(30, 2000)
@given(
    corners=st.lists(xml_texts, min_size=4, max_size=4),
    size=st.lists(xml_texts, min_size=2, max_size=2),
    name=xml_texts,
    file=xml_texts,
)
def test_voc_annotations(corners: list[str], size: list[str], name: str, file: str) -> None:
    """Numbers that are none, in every field."""
    with tempfile.TemporaryDirectory() as folder:
        root = simple_voc(Path(folder))
        keys = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
        (root / "Annotations" / "a.xml").write_text(
            f"<annotation><filename>{file}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
            f"<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
        )
        usable(voc(root=folder, sets={"train": "train", "val": "val"}, **LOADING))


@fuzz(25, 1000)
@given(content=st.binary(max_size=200), where=st.sampled_from(["Annotations/a.xml", "ImageSets/Main/train.txt"]))
def test_bytes_in_voc_folders(content: bytes, where: str) -> None:
    """Random bytes as an annotation and as a list."""
    with tempfile.TemporaryDirectory() as folder:
        root = simple_voc(Path(folder))
        (root / where).write_bytes(content)
        usable(voc(root=folder, sets={"train": "train", "val": "val"}, **LOADING))


@fuzz(25, 3000)
@given(
    lines=st.lists(st.lists(st.one_of(xml_texts, st.floats().map(str)), max_size=9).map(" ".join), max_size=4),
    document=st.one_of(
        st.none(), st.fixed_dictionaries({"train": anything, "names": anything}, optional={"path": anything}), anything
    ),
)
def test_yolo_folders(lines: list[str], document: Any) -> None:
    """Rows of labels and data.yaml at random (json is YAML)."""
    with tempfile.TemporaryDirectory() as folder:
        root = simple_yolo(Path(folder))
        (root / "labels" / "train" / "0.txt").write_text("\n".join(lines))
        if document is not None:
            (root / "data.yaml").write_text(json.dumps(document))
        usable(yolo(root=folder, **LOADING))


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@fuzz(60, 3000)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"]),
    cut=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    noise=st.one_of(st.none(), st.binary(max_size=300)),
)
def test_images(kind: str, cut: float, damage: list, size: tuple[int, int], noise: bytes | None) -> None:
    """Truncated, flipped and random bytes: an ImageError, or an image of the size that was announced."""
    content = bytearray(noise if noise is not None else encoded(kind, size))
    content = content[: math.ceil(len(content) * cut)]
    for place, value in damage if content else ():
        content[int(place * len(content))] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image"
        file.write_bytes(content)
        try:
            facts = inspect(file, decode=True, max_pixels=10_000)
        except ImageError:
            return
        image = read_image(file, max_pixels=10_000)
        assert image.dtype == torch.uint8
        assert tuple(image.shape) == (3, *facts.size)


LOSSES = ("malformed box", "degenerate box", "box outside the image", "duplicate box")
boxes = st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=5)


@fuzz(100, 5000)
@given(rows=boxes, size=st.tuples(st.integers(1, 100), st.integers(1, 100)))
def test_the_audit_of_boxes(rows: list[list[float]], size: tuple[int, int]) -> None:
    """What is left can be trained on, and what is dropped is counted."""
    values = [[max(min(v, 1e308), -1e308) if isinstance(v, int) else v for v in row] for row in rows]
    item = record(id=1, name="x", path=None, size=size, objects=[{"box": v, "label": 0} for v in values])
    report = AuditReport()
    (kept,) = check_boxes([item], "train", report, min_size=1.0)
    sides = kept.boxes[:, 2:] - kept.boxes[:, :2]
    assert np.isfinite(kept.boxes).all()
    assert (sides >= 1.0).all()
    dropped = sum(report.count(rule) for rule in LOSSES)
    assert len(kept.labels) + dropped == len(rows)


edges = st.one_of(st.floats(0, 64, width=32), st.sampled_from([0.0, 1e-6, 31.999, 32.0, 63.9999, 64.0]))


@pytest.mark.parametrize("family", ["retinanet", "faster_rcnn"])
@pytest.mark.parametrize("examples", [6, pytest.param(300, marks=pytest.mark.many)])
def test_losses_stay_finite(family: str, examples: int) -> None:
    """Targets at random: points, slivers, boxes on each other, crowds, empty images."""
    small = [f"model={family}", "model/backbone=resnet18", "model.neck.width=16"]
    detector = build_detector(small, num_classes=3).train()

    @settings(max_examples=examples, **FEW)
    @given(
        rows=st.lists(st.lists(st.tuples(edges, edges, edges, edges), max_size=4), min_size=2, max_size=2),
        label=st.integers(0, 2),
        crowd=st.booleans(),
    )
    def check(rows: list, label: int, crowd: bool) -> None:
        most = max(1, *(len(r) for r in rows))
        boxes, labels = torch.zeros(2, most, 4), torch.full((2, most), -1)
        for i, row in enumerate(rows):
            for j, (a, b, c, d) in enumerate(row):
                boxes[i, j] = torch.tensor([min(a, c), min(b, d), max(a, c), max(b, d)])
                labels[i, j] = label
        crowds = torch.full((2, most), crowd) & (labels >= 0)
        area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
        targets = Targets(boxes, labels, area, crowds, torch.zeros_like(crowds))
        sizes = torch.tensor([[64, 64]] * 2)
        images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        detector.zero_grad()
        losses = detector.loss(Batch(images, sizes, sizes, torch.tensor([1, 2]), targets))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)

    check()
