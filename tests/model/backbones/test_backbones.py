"""Backbones: published parameter counts and shapes, weights, norms, freezing."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg16
from torchvision.ops import FrozenBatchNorm2d

from detlab.model.backbones import VGG16, Backbone, ResNet, weights
from detlab.model.backbones.weights import WeightsError


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "total"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160), (152, 58_143_808)]
)
def test_resnet_parameters_without_classifier(depth: int, total: int) -> None:
    """torchvision's totals less fc: 11,689,512 - 513,000 for ResNet-18, and so on."""
    with torch.device("meta"):
        assert count(ResNet(depth=depth)) == total


def test_vgg16_features_have_the_papers_parameters() -> None:
    with torch.device("meta"):
        net = VGG16()
        assert count(net) == 14_714_688
        assert count(net.take_tail()) + count(net) == 138_357_544 - 4_097_000  # without fc8


@pytest.mark.parametrize("canvas", [(224, 224), (600, 1000), (97, 130)])
@pytest.mark.parametrize("net", ["resnet50", "resnet18", "vgg16"])
def test_maps_have_their_levels_size(canvas: tuple[int, int], net: str) -> None:
    with torch.device("meta"):
        backbone: Backbone = VGG16() if net == "vgg16" else ResNet(depth=int(net[6:]))
        out = backbone(torch.empty(1, 3, *canvas))
    assert list(out) == ["C2", "C3", "C4", "C5"]
    for level in backbone.levels:
        assert out[level.name].shape == (1, level.channels, *level.size(canvas)), level.name


def test_published_shapes() -> None:
    with torch.device("meta"):
        assert ResNet(depth=101)(torch.empty(1, 3, 600, 1000))["C4"].shape == (1, 1024, 38, 63)
        tail = ResNet(depth=101).take_tail()
        assert tail[0](torch.empty(2, 1024, 14, 14)).shape == (2, 2048, 7, 7)
        assert tail[0](torch.empty(2, 1024, 7, 7)).shape == (2, 2048, 4, 4)
        assert tail(torch.empty(2, 1024, 14, 14)).shape == (2, 2048)


def test_only_what_is_read_is_built() -> None:
    net = ResNet(depth=18)
    net.keep(["C3"])
    assert net.layer3 is None
    assert net.layer4 is None
    assert list(net(torch.zeros(1, 3, 32, 32))) == ["C3"]
    vgg = VGG16()
    vgg.keep(["C4"])
    assert list(vgg(torch.zeros(1, 3, 32, 32))) == ["C4"]


def test_normalisation_is_torchvisions_and_padding_is_zero() -> None:
    images = torch.full((1, 3, 4, 6), 128, dtype=torch.uint8)
    out = ResNet(depth=18).normalize(images, torch.tensor([[3, 5]]))
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(out[0, :, 0, 0], expected, atol=1e-5, rtol=1e-5)
    assert out[0, :, 3].abs().sum() == 0
    assert out[0, :, :, 5].abs().sum() == 0
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frozen", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "make", [lambda n: ResNet(depth=18, frozen_stages=n), lambda n: VGG16(frozen_stages=n, norm="bn")]
)
def test_frozen_stages_neither_learn_nor_drift(frozen: int, make: object) -> None:
    net = make(frozen).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    out = net(torch.randn(2, 3, 64, 64))
    if frozen < 5:
        out["C5"].square().mean().backward()
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1).step()
    rows = net.trainable_report()
    assert [trainable == 0 for _, trainable, _ in rows[:frozen]] == [True] * frozen
    assert all(trainable == total for _, trainable, total in rows[frozen:])
    frozen_modules = [m for _, m in net.stages()[:frozen]]
    after = net.state_dict()
    names = {id(v) for m in frozen_modules for v in [*m.parameters(), *m.buffers()]}
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if id(value) in names:
            assert torch.equal(before[name], after[name]), name
    if frozen < 5:
        assert any(not torch.equal(before[k], after[k]) for k in after)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("bn", nn.BatchNorm2d), ("frozen_bn", FrozenBatchNorm2d), ("sync_bn", nn.SyncBatchNorm), ("gn", nn.GroupNorm)],
)
def test_norms(norm: str, kind: type) -> None:
    for net in (ResNet(depth=18, norm=norm), VGG16(norm=norm)):
        found = [
            m
            for m in net.modules()
            if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d | nn.GroupNorm | nn.SyncBatchNorm)
        ]
        assert found
        assert all(type(m) is kind for m in found)


def test_frozen_bn_makes_affine_terms_buffers() -> None:
    with torch.device("meta"):
        assert count(ResNet(depth=50)) - count(ResNet(depth=50, norm="frozen_bn")) == 53_120


def test_weights_from_a_file_give_torchvisions_features(tmp_path: Path) -> None:
    net = resnet18()
    torch.save(net.state_dict(), tmp_path / "r18.pth")
    ours = ResNet(depth=18, weights=str(tmp_path / "r18.pth"), norm="frozen_bn").eval()
    x = torch.randn(1, 3, 64, 64)
    net.eval()
    y = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
    torch.testing.assert_close(ours(x)["C3"], y, atol=1e-4, rtol=1e-4)


def test_vgg_weights_reach_fc6_and_fc7(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in vgg16().state_dict().items()}
    state = {k: torch.zeros(1).expand(s) + 0.5 for k, s in shapes.items() if k.startswith("features.")}
    state |= {f"classifier.{i}.bias": torch.full((4096,), float(i)) for i in (0, 3)}
    state |= {f"classifier.{i}.weight": torch.full(shapes[f"classifier.{i}.weight"], 0.25) for i in (0, 3)}
    torch.save({"state_dict": state}, tmp_path / "vgg.pth")
    tail = VGG16(weights=str(tmp_path / "vgg.pth")).take_tail()
    assert tail[1].bias[0].item() == 0
    assert tail[4].bias[0].item() == 3
    assert tail[4].weight[0, 0].item() == 0.25


def test_mistaken_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights=nowhere.pth is neither 'imagenet' nor a file"):
        ResNet(depth=18, weights="nowhere.pth")
    (tmp_path / "x.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="weights_only=True"):
        ResNet(depth=18, weights=str(tmp_path / "x.pth"))
    torch.save(resnet18().state_dict(), tmp_path / "r18.pth")
    with pytest.raises(WeightsError, match="does not fit this network"):
        ResNet(depth=34, weights=str(tmp_path / "r18.pth"))
    with pytest.raises(WeightsError, match="norm=gn cannot take batch-norm weights"):
        ResNet(depth=18, weights=str(tmp_path / "r18.pth"), norm="gn")
    with pytest.raises(ValueError, match="model.backbone.norm=ln is not known"):
        ResNet(depth=18, norm="ln")
    with pytest.raises(ValueError, match="frozen_stages=6"):
        ResNet(depth=18, frozen_stages=6)


def test_a_download_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.torch.hub, "download_url_to_file", _refuse)
    with pytest.raises(WeightsError, match=r"could not download https://.*resnet18-f37072fd.pth .*weights=PATH"):
        ResNet(depth=18, weights="imagenet")


def _refuse(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_a_download_is_real_and_checked_by_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file comes through torch.hub from a (local) address; a wrong hash in its name is refused."""
    import hashlib

    source = tmp_path / "source.pth"
    torch.save(resnet18().state_dict(), source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    good = source.rename(tmp_path / f"resnet18-{digest}.pth")

    class Entry:
        url = good.as_uri()

    monkeypatch.setattr(weights, "get_model_weights", lambda name: {weights.VERSION: Entry})
    assert ResNet(depth=18, weights="imagenet").weights == "imagenet"
    bad = tmp_path / "resnet18-00000000.pth"
    bad.write_bytes(good.read_bytes())
    Entry.url = bad.as_uri()
    with pytest.raises(WeightsError, match="could not download"):
        ResNet(depth=18, weights="imagenet")


@pytest.mark.parametrize("depth", [18, 50])
def test_a_narrow_resnet_has_the_stages_of_its_width(depth: int) -> None:
    wide, narrow = ResNet(depth=depth), ResNet(depth=depth, width=16)
    assert [level.channels * 4 for level in narrow.levels] == [level.channels for level in wide.levels]
    assert [level.stride for level in narrow.levels] == [level.stride for level in wide.levels]
    maps = narrow(torch.rand(1, 3, 64, 64))
    assert [tuple(maps[level.name].shape) for level in narrow.levels] == [
        (1, level.channels, 64 // level.stride, 64 // level.stride) for level in narrow.levels
    ]
    first = narrow.conv1.weight.std().item()
    assert first == pytest.approx((2 / (16 * 49)) ** 0.5, rel=0.1)  # He's, by the outputs
    assert list(wide.state_dict()) == list(narrow.state_dict())
