"""SSD's and RefineDet's source maps: sizes on any canvas, room, sources, weights made from VGG's fc layers."""

import pytest
import torch
from torch import nn

from detlab.model.backbones import VGG16, ResNet
from detlab.model.necks import SSDExtras
from detlab.model.necks.ssd_extras import L2Norm
from detlab.tensors.structures import Level

SSD300 = [[256, 512, 3, 2, 1], [128, 256, 3, 2, 1], [128, 256, 3, 1, 0], [128, 256, 3, 1, 0]]
SSD512 = [[256, 512, 3, 2, 1], *[[128, 256, 3, 2, 1]] * 3, [128, 256, 4, 1, 1]]
VGG = tuple(Level(f"C{i}", c, 2**i) for i, c in zip(range(2, 6), (256, 512, 512, 512), strict=True))
RESNET = tuple(Level(f"C{i}", 64 * 2 ** (i - 2), 2**i) for i in range(2, 6))


def vgg(blocks: list = SSD300, **options: object) -> SSDExtras:
    return SSDExtras(levels=VGG, fc_weights={}, blocks=blocks, l2_scales={"C3": 20.0}, **options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def maps(neck: SSDExtras, canvas: tuple[int, int], levels: tuple[Level, ...]) -> dict[str, torch.Tensor]:
    return {v.name: torch.randn(1, v.channels, *v.size(canvas)) for v in levels if v.name in neck.reads}


def test_l2_norm_by_hand() -> None:
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert L2Norm(2, 20)(x).flatten().tolist() == pytest.approx([12, 16])


def test_maps_of_ssd300_on_vgg() -> None:
    neck = vgg()
    assert [v.channels for v in neck.levels] == [512, 1024, 512, 256, 256, 256]
    assert [v.size((300, 300))[0] for v in neck.levels] == [38, 19, 10, 5, 3, 1]
    assert neck.reads == ("C3", "C4")
    assert neck.for_rois == ("C3", "fc7", "extra1")


def test_a_resnets_c5_stands_in_the_place_of_the_first_block() -> None:
    neck = SSDExtras(levels=RESNET, blocks=SSD300, l2_scales={"C3": 20.0})
    assert [v.name for v in neck.levels] == ["C3", "C4", "C5", "extra2", "extra3", "extra4"]
    assert [v.size((300, 300))[0] for v in neck.levels] == [38, 19, 10, 5, 3, 1]
    assert not neck.l2


@pytest.mark.parametrize("canvas", [(300, 300), (97, 120), (64, 64), (32, 500)])
@pytest.mark.parametrize("blocks", [SSD300, SSD512])
@pytest.mark.parametrize("net", ["vgg", "plain", "resnet"])
def test_every_map_has_its_levels_size(canvas: tuple[int, int], blocks: list, net: str) -> None:
    """Also on canvases smaller than those trained on, where maps are below the kernels."""
    if net == "resnet":
        neck, levels = SSDExtras(levels=RESNET, blocks=blocks), RESNET
    else:
        neck, levels = vgg(blocks, atrous=net == "vgg"), VGG
    out = neck(maps(neck, canvas, levels))
    assert list(out) == [v.name for v in neck.levels]
    for level in neck.levels:
        assert out[level.name].shape == (1, level.channels, *level.size(canvas)), level.name


@pytest.mark.parametrize(
    ("blocks", "canvas", "left", "note"),
    [
        (SSD300, 300, 6, ""),
        (SSD300, 257, 6, ""),  # 5x5 before the first unpadded conv
        (SSD300, 256, 5, "without extra4: a canvas of 256 px leaves a map of 2 to a conv of 3"),
        (SSD300, 96, 4, "without extra3, extra4: a canvas of 96 px leaves a map of 2 to a conv of 3"),
        (SSD300, [128, 300], 4, "without extra3, extra4: a canvas of 128 px leaves a map of 2 to a conv of 3"),
        (SSD512, 512, 7, ""),
        (SSD512, 256, 6, "without extra5: a canvas of 256 px leaves a map of 1 to a conv of 4"),
    ],
)
def test_blocks_without_room_are_not_built(blocks: list, canvas: object, left: int, note: str) -> None:
    neck = vgg(blocks, canvas=canvas)
    assert (len(neck.levels), neck.note) == (left, note)
    assert len(neck.blocks) == left - 2


@pytest.mark.parametrize("canvas", [96, 300])
def test_every_parameter_is_used_on_the_canvas_it_was_built_for(canvas: int) -> None:
    neck = vgg(canvas=canvas)
    out = neck(maps(neck, (canvas, canvas), VGG))
    sum(v.square().mean() for v in out.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())


@pytest.mark.parametrize("side", [64, 96, 512])
def test_maps_of_one_cell_have_finite_gradients_in_bfloat16(side: int) -> None:
    """See `ExtraBlock`; halving, unpadded and 4x4 convs on maps of a few cells."""
    blocks = [[8, 8, 3, 2, 1]] * (5 if side == 512 else 3) + [[8, 8, 3, 1, 0], [8, 8, 4, 1, 1]]
    levels = tuple(v._replace(channels=8) for v in RESNET)
    for _ in range(5):
        junk = [torch.full((1000 + 37 * i,), torch.nan) for i in range(20)]
        del junk  # memory that the allocator hands out again
        neck = SSDExtras(levels=levels, blocks=blocks)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = neck(maps(neck, (side, side), levels))
        sum(v.float().sum() for v in out.values()).backward()
        assert all(p.grad.isfinite().all() for p in neck.parameters())


@pytest.mark.parametrize(
    ("sources", "reads", "blocks"),
    [
        (["C3"], ("C3",), 0),
        (["fc7"], ("C4",), 0),
        (["C3", "fc7", "extra1", "extra2"], ("C3", "C4"), 2),
        (["extra4"], ("C4",), 4),
    ],
)
def test_what_no_source_needs_is_not_built(sources: list[str], reads: tuple[str, ...], blocks: int) -> None:
    neck = vgg(sources=sources)
    assert [v.name for v in neck.levels] == sources
    assert (neck.reads, len(neck.blocks)) == (reads, blocks)
    out = neck(maps(neck, (300, 300), VGG))
    assert list(out) == sources
    sum(v.square().mean() for v in out.values()).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_rois_need_no_maps_beyond_stride_32() -> None:
    neck = vgg()
    neck.without_anchors()
    assert [v.name for v in neck.levels] == ["C3", "fc7", "extra1"]
    assert list(neck.blocks) == ["extra1"]
    plain = SSDExtras(levels=RESNET, blocks=SSD300)
    plain.without_anchors()
    assert list(plain(maps(plain, (64, 64), RESNET))) == ["C3", "C4", "C5"]
    assert not plain.blocks


def test_without_atrous_conv5_3_is_a_source() -> None:
    neck = vgg(atrous=False)
    assert [v.name for v in neck.levels] == ["C3", "C4", "fc7", "extra2", "extra3", "extra4"]
    assert [v.size((300, 300))[0] for v in neck.levels] == [38, 19, 10, 5, 3, 1]
    assert neck.fc[1].dilation == (1, 1)
    assert vgg().fc[1].dilation == (6, 6)


def test_refinedets_trunk_has_its_published_parameters() -> None:
    with torch.device("meta"):
        net = VGG16()
        neck = SSDExtras(
            levels=net.levels, fc_weights=net.fc_weights, atrous=False, dilation=3, blocks_from=32,
            blocks=[[256, 512, 3, 2, 1]], l2_scales={"C3": 10, "C4": 8},
        )  # fmt: skip
        net.keep(neck.reads)
    assert count(net) + count(neck) == 21_926_464 + 1024  # and two L2 norms
    assert [v.stride for v in neck.levels] == [8, 16, 32, 64]
    assert neck.fc[1].dilation == (3, 3)


def test_fc_weights_are_subsampled() -> None:
    """fc6: every fourth of 4096 outputs and taps 0, 3, 6 of 7x7; fc7: every fourth output and input."""
    weights = {
        "fc6.weight": torch.arange(512 * 49.0).expand(4096, -1),
        "fc6.bias": torch.arange(4096.0),
        "fc7.weight": torch.arange(4096.0).expand(4096, -1),
        "fc7.bias": torch.arange(4096.0),
    }
    neck = SSDExtras(levels=VGG, fc_weights=weights, blocks=SSD300)
    fc6, fc7 = neck.fc[1], neck.fc[3]
    assert fc6.weight[5, 7, 1, 2] == 7 * 49 + 3 * 7 + 6
    assert fc6.bias[:3].tolist() == fc7.bias[:3].tolist() == [0, 4, 8]
    assert fc7.weight[3, :3, 0, 0].tolist() == [0, 4, 8]


def test_a_vgg_hands_its_fc_weights_over() -> None:
    net = VGG16()
    assert net.fc_weights == {}
    net._classifier = {f"classifier.{i}.{leaf}": torch.zeros(1) for i in (0, 3, 6) for leaf in ("weight", "bias")}
    assert sorted(net.fc_weights) == ["fc6.bias", "fc6.weight", "fc7.bias", "fc7.weight"]
    assert ResNet(depth=18).fc_weights is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ["C4"]}, r"model.neck.sources=C4 is not a map of this backbone; use some of C3, fc7, extra1"),
        ({"sources": []}, r"model.neck.sources=\[\] is not a map"),
        ({"blocks": [[256, 512, 3]]}, "needs five numbers"),
        ({"blocks": [[128, 256, 3, 1, 0], [128, 256, 3, 2, 1]]}, "neither halves its map"),
        ({"blocks_from": 32}, r"blocks_from=32 lies behind fc7 of stride 16; use model.neck.blocks_from=16"),
    ],
)
def test_mistakes_name_their_option(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vgg(**options)
