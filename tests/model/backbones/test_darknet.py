"""Darknet's networks: parameters to the unit, maps, tails, and their files to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detlab.model.backbones import Darknet
from detlab.model.backbones.darknet_file import DarknetFile, Header, tensors_of, write
from detlab.model.backbones.weights import WeightsError

OLD, NEW = Header(0, 1, 0, 64_000), Header(0, 2, 5, 32_013_312)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def floats(module: nn.Module) -> int:
    return sum(t.numel() for t in tensors_of(module))


@pytest.mark.parametrize(
    ("name", "trainable", "stored"),
    [
        ("darknet19", 19_817_376, 19_831_776),
        ("darknet53", 40_584_928, 40_620_640),
        ("extraction", 22_412_224, 22_430_400),
    ],
)
def test_published_parameters(name: str, trainable: int, stored: int) -> None:
    """The classifiers of Darknet-19 and 53 have 20,842,376 and 41,609,928, of which 1,025,000 are the last conv's."""
    with torch.device("meta"):
        net = Darknet(name=name)
        assert count(net) == trainable
        assert floats(net) == stored
        assert count(Darknet(name=name, norm="none")) < trainable  # biases in place of scales and shifts


@pytest.mark.parametrize("canvas", [(416, 416), (97, 130)])
@pytest.mark.parametrize("name", ["darknet19", "darknet53", "extraction"])
def test_maps_have_their_levels_size(canvas: tuple[int, int], name: str) -> None:
    with torch.device("meta"):
        net = Darknet(name=name)
        out = net(torch.empty(1, 3, *canvas))
        tail = net.take_tail()
        assert tail(torch.empty(2, net.tail.channels, net.tail.size, net.tail.size)).shape == (2, net.tail.width)
    assert list(out) == ["C2", "C3", "C4", "C5"]
    for level in net.levels:
        assert out[level.name].shape == (1, level.channels, *level.size(canvas)), level.name
    with pytest.raises(ValueError, match="given its last stage away"):
        net.take_tail()


def test_images_enter_as_shares_of_255_and_padding_may_be_grey() -> None:
    net = Darknet(name="darknet19")
    images = torch.full((1, 3, 4, 6), 51, dtype=torch.uint8)
    out = net.normalize(images, torch.tensor([[3, 5]]), 127.5)
    torch.testing.assert_close(out[0, :, :3, :5], torch.full((3, 3, 5), 0.2))
    torch.testing.assert_close(out[0, :, 3], torch.full((3, 6), 0.5))
    assert net.normalize(images, torch.tensor([[3, 5]]))[0, :, 3].abs().sum() == 0


def test_only_what_is_read_is_built() -> None:
    net = Darknet(name="darknet53")
    net.keep(["C3"])
    assert [name for name, _ in net.stages()] == ["stem", "C2", "C3"]
    assert list(net(torch.zeros(1, 3, 32, 32))) == ["C3"]


def test_darknets_running_statistics() -> None:
    net = Darknet(name="darknet19", norm_momentum=0.03)
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.03}
    assert {m.momentum for m in Darknet(name="darknet19").modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    with pytest.raises(
        ValueError, match="model.backbone.name=darknet20 is not known; use one of extraction, darknet19"
    ):
        Darknet(name="darknet20")


def small() -> nn.Sequential:
    """A conv with batch norm and one without, a connected layer."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 1),
        nn.Linear(2, 5),
    )


def randomise(module: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in tensors_of(module):
            tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.1)
    return module


@pytest.mark.parametrize("header", [OLD, NEW])
def test_the_documented_layout(header: Header, tmp_path: Path) -> None:
    """Beta, gamma, mean, variance, weight; bias, weight; bias, weight; behind 16 or 20 bytes."""
    net = randomise(small())
    conv, norm = net[0][0], net[0][1]
    order = [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]
    order += [net[2].bias, net[2].weight, net[3].bias, net[3].weight]
    numbers = np.concatenate([t.detach().flatten().numpy() for t in order])
    file = tmp_path / "x.weights"
    seen = header.seen.to_bytes(8 if header is NEW else 4, "little")
    start = b"".join(v.to_bytes(4, "little") for v in header[:3]) + seen
    file.write_bytes(start + numbers.astype("<f4").tobytes())
    assert len(start) == (20 if header is NEW else 16)
    other, read = small(), DarknetFile(file)
    assert read.header == header
    read.into(other)
    read.finish()
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(other.state_dict()[name], value), name
    write(tmp_path / "again.weights", [net], header)
    assert (tmp_path / "again.weights").read_bytes() == file.read_bytes()


def test_a_file_that_is_not_consumed_exactly_is_refused(tmp_path: Path) -> None:
    net = randomise(small())
    write(tmp_path / "long.weights", [net, nn.Linear(1, 1)], NEW)
    read = DarknetFile(tmp_path / "long.weights")
    read.into(net)
    with pytest.raises(WeightsError, match=r"holds 91 numbers, 2 more than the network takes; choose the network"):
        read.finish()
    write(tmp_path / "short.weights", [net[0]], NEW)
    with pytest.raises(WeightsError, match=r"ends after 66 numbers, but the network needs more"):
        DarknetFile(tmp_path / "short.weights").into(net)
    (tmp_path / "cut.weights").write_bytes((tmp_path / "long.weights").read_bytes()[:-1])
    with pytest.raises(WeightsError, match="no whole number of float32"):
        DarknetFile(tmp_path / "cut.weights")
    (tmp_path / "tiny.weights").write_bytes(b"1234")
    with pytest.raises(WeightsError, match="has 4 bytes, which is less than darknet's header"):
        DarknetFile(tmp_path / "tiny.weights")
    (tmp_path / "text.weights").write_bytes(b"this is no file of darknet's.!!!")
    with pytest.raises(WeightsError, match="begins with version .* none of darknet's"):
        DarknetFile(tmp_path / "text.weights")
    with pytest.raises(WeightsError, match="is no file; give the path of a darknet"):
        DarknetFile(tmp_path / "none.weights")


@pytest.fixture(scope="module")
def trunk() -> Darknet:
    return randomise(Darknet(name="darknet19")).eval()


@pytest.mark.parametrize("name", ["darknet19_448.conv.23", "darknet19.weights"])
def test_a_trunk_is_filled_from_its_own_file(name: str, trunk: Darknet, tmp_path: Path) -> None:
    """With the ImageNet classifier behind it or without; 79,327,124 bytes of .conv.23 are 20 + 4 x 19,831,776."""
    modules = [module for _, module in trunk.stages()]
    if name.endswith(".weights"):
        modules.append(nn.Conv2d(1024, 1000, 1))
    write(tmp_path / name, modules, NEW)
    if name.endswith(".conv.23"):
        assert (tmp_path / name).stat().st_size == 20 + 4 * 19_831_776
    filled = Darknet(name="darknet19", weights=str(tmp_path / name)).eval()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(filled(x)["C5"], trunk(x)["C5"])


def test_a_file_of_another_network_is_refused(trunk: Darknet, tmp_path: Path) -> None:
    modules = [module for _, module in trunk.stages()]
    path = tmp_path / "darknet19.weights"
    write(path, [*modules, nn.Linear(3, 3)], NEW)
    with pytest.raises(WeightsError, match="12 more than the network takes"):
        Darknet(name="darknet19", weights=str(path))
    with pytest.raises(WeightsError, match="but the network needs more"):
        Darknet(name="darknet53", weights=str(path))
    with pytest.raises(WeightsError, match="imagenet is torchvision's, which has no Darknet"):
        Darknet(name="darknet19", weights="imagenet")
    with pytest.raises(WeightsError, match="norm=gn cannot take batch-norm weights"):
        Darknet(name="darknet19", weights=str(path), norm="gn")
    with pytest.raises(WeightsError, match="weights=nowhere.pth is no file"):
        Darknet(name="darknet19", weights="nowhere.pth")


def test_a_state_dict_fills_it_as_well(trunk: Darknet, tmp_path: Path) -> None:
    torch.save(trunk.state_dict(), tmp_path / "d19.pth")
    filled = Darknet(name="darknet19", weights=str(tmp_path / "d19.pth")).eval()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(filled(x)["C5"], trunk(x)["C5"])
