"""Published files of darknet: byte counts, order of layers, exact consumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from detlab import build_detector, from_darknet
from detlab.errors import ConfigError
from detlab.model.backbones.darknet_file import Header, tensors_of, write
from detlab.model.backbones.weights import WeightsError
from detlab.runs.darknet import PUBLISHED, file_order
from tests.batches import make_batch

OLD, NEW = Header(0, 1, 0, 1), Header(0, 2, 0, 2**33)
TINY = {
    "yolov3": ["model=yolo", "model/backbone=darknet19", "model.neck.widths=[8, 8, 8]"],
    "yolov2": ["model=yolov2", "model/backbone=darknet19", "model.neck.width=16", "model.head.width=16"],
    "yolov1": ["model=yolov1", "model/backbone=darknet19", "model.neck.width=8", "model.head.width=4", "data.size=128"],
}


@pytest.mark.parametrize(
    ("name", "classes", "header", "bytes_"),
    [
        ("yolov3", 80, 20, 248_007_048),
        ("yolov3", 20, 16, 246_714_648 - 4),  # the published yolov3-voc has the long header
        ("yolov2", 80, 16, 203_934_260),
        ("yolov2-voc", 20, 16, 202_704_260),
        ("yolov1", 20, 16, 777_018_888),
    ],
)
def test_published_files_have_these_bytes(name: str, classes: int, header: int, bytes_: int) -> None:
    with torch.device("meta"):
        detector = build_detector(PUBLISHED[name], num_classes=classes)
    assert header + 4 * sum(t.numel() for m in file_order(detector) for t in tensors_of(m)) == bytes_
    stored = {id(t) for m in file_order(detector) for t in tensors_of(m)}
    assert {id(p) for p in detector.parameters()} <= stored


def randomised(name: str) -> nn.Module:
    detector = build_detector(TINY[name], num_classes=3).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in file_order(detector):
            for tensor in tensors_of(module):
                tensor.copy_(0.2 * torch.rand(tensor.shape, generator=g) + 0.02)
    return detector


@pytest.mark.parametrize(("name", "header"), [("yolov3", NEW), ("yolov2", OLD), ("yolov1", NEW)])
def test_a_written_file_gives_the_same_network(name: str, header: Header, tmp_path: Path) -> None:
    detector = randomised(name)
    path = tmp_path / f"{name}.weights"
    write(path, file_order(detector), header)
    read = from_darknet(path, num_classes=3, overrides=TINY[name])
    assert not read.training
    for key, value in detector.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(read.state_dict()[key], value), key
    batch = make_batch([[]], [[]], side=128)
    for one, other in zip(read.detect(batch), detector.detect(batch), strict=True):
        assert torch.equal(one, other)


def test_yolov3_goes_from_coarse_to_fine() -> None:
    """The first numbers behind the trunk are those of the convs on C5; the last those of P3's outputs."""
    with torch.device("meta"):
        detector = build_detector(PUBLISHED["yolov3"], num_classes=80)
    behind = file_order(detector)[5:]
    names = {id(module): name for name, module in detector.named_modules()}
    order = [names[id(module)] for module in behind]
    assert order[:5] == ["neck.convs.P5", "head.conv.P5", "head.out.P5", "neck.up.P4", "neck.convs.P4"]
    assert order[-4:] == ["neck.up.P3", "neck.convs.P3", "head.conv.P3", "head.out.P3"]


def test_a_file_of_other_classes_or_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "yolov2.weights"
    write(path, file_order(randomised("yolov2")), NEW)
    with pytest.raises(WeightsError, match="from_darknet=.* ends after .* the number of classes"):
        from_darknet(path, num_classes=4, overrides=TINY["yolov2"])
    with pytest.raises(WeightsError, match=r"holds .* numbers, 85 more than the network takes"):  # 5 anchors x (16 + 1)
        from_darknet(path, num_classes=2, overrides=TINY["yolov2"])
    write(path, file_order(randomised("yolov2")), OLD._replace(minor=2))
    data = path.read_bytes()
    path.write_bytes(data[:16] + data[20:])  # the short header under a version of the long one
    with pytest.raises(WeightsError, match="ends after"):
        from_darknet(path, num_classes=3, overrides=TINY["yolov2"])


def test_names_choose_the_network(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the name yolov3-tiny.weights is none of yolov3, .*; give the network's choices"
    ):
        from_darknet(tmp_path / "yolov3-tiny.weights")
    with pytest.raises(WeightsError, match=r"yolov3.weights is no file"):
        from_darknet(tmp_path / "yolov3.weights")
    write(tmp_path / "x.weights", [nn.Linear(1, 1)], NEW)
    with pytest.raises(ConfigError, match="fills YOLO alone, not RetinaNet"):
        from_darknet(tmp_path / "x.weights", 3, ["model=retinanet"])
