"""Heads: parameters, order of rows, priors, which body a RoI head takes."""

from functools import partial

import pytest
import torch
from torch import nn

from detlab.model.backbones import VGG16, ResNet
from detlab.model.heads import DenseHead, FCHead, roi_head, truncate_svd
from detlab.model.heads.yolo import GridHead
from detlab.model.losses import BCELoss, CrossEntropyLoss, FocalLoss, SquaredClassLoss, SquaredObjectness
from detlab.model.pools import RoIAlign, SpatialPyramidPool
from detlab.tensors.structures import Level
from tests.tiny import Tiny

PYRAMID = [Level(f"P{i}", 256, 2**i) for i in range(3, 8)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_retinanet_head_parameters() -> None:
    with torch.device("meta"):
        head = DenseHead(levels=PYRAMID, num_anchors=[9] * 5, cls_loss=FocalLoss(), num_classes=91)
    assert count(head.cls_tower) == count(head.box_tower) == 2_360_320
    assert count(head.cls) == 1_887_795
    assert count(head.box) == 82_980


def test_rpn_head_parameters() -> None:
    options = {"width": None, "depth": 1, "shared": True, "predictor_kernel": 1, "prior": None}
    head = DenseHead(levels=PYRAMID, num_anchors=[3] * 5, cls_loss=BCELoss(), num_classes=1, **options)
    assert count(head) == 593_935


def test_rows_are_in_the_order_of_anchors() -> None:
    """Level, row, column, anchor: each location's own input comes out at its place."""
    levels = [Level("A", 1, 8), Level("B", 1, 16)]
    options = {"width": 1, "depth": 0, "predictor_kernel": 1, "prior": None}
    head = DenseHead(levels=levels, num_anchors=[2, 2], cls_loss=FocalLoss(), num_classes=3, **options)
    head.cls.weight.data[:] = 1
    head.cls.bias.data = torch.arange(6.0) * 100  # anchor 0: 0 100 200, anchor 1: 300 400 500
    features = {"A": torch.arange(6.0).view(1, 1, 2, 3), "B": torch.tensor([[[[50.0]]]])}
    logits = head(features).logits[0]
    assert logits.shape == (14, 3)
    assert logits[0].tolist() == [0, 100, 200]
    assert logits[1].tolist() == [300, 400, 500]
    assert logits[2 * 4].tolist() == [4, 104, 204]  # row 1, column 1
    assert logits[12].tolist() == [50, 150, 250]


def test_prior_of_an_untrained_head() -> None:
    levels = [Level("P3", 16, 8)]
    head = DenseHead(levels=levels, num_anchors=[9], cls_loss=FocalLoss(), num_classes=4, width=16)
    scores = head({"P3": torch.randn(1, 16, 4, 4)}).logits.sigmoid()
    assert scores.mean().item() == pytest.approx(0.01, rel=0.1)


def test_stems_only_where_channels_differ() -> None:
    levels = [Level("C3", 128, 8), Level("C4", 256, 16), Level("C5", 512, 32)]
    head = DenseHead(levels=levels, num_anchors=[3] * 3, cls_loss=FocalLoss(), num_classes=2)
    assert list(head.stems) == ["C3", "C5"]
    assert not DenseHead(levels=PYRAMID, num_anchors=[9] * 5, cls_loss=FocalLoss(), num_classes=2).stems


def test_unequal_anchors_are_refused() -> None:
    with pytest.raises(ValueError, match="equal anchors on each"):
        DenseHead(levels=PYRAMID[:2], num_anchors=[3, 6], cls_loss=FocalLoss(), num_classes=2)


def build(backbone: nn.Module, levels: list[Level], pool: type = RoIAlign, **options: object) -> nn.Module:
    return roi_head(
        levels=levels, backbone=backbone, pool=partial(pool), cls_loss=CrossEntropyLoss(), num_classes=20, **options
    )


def test_fpn_head_parameters() -> None:
    with torch.device("meta"):
        head = build(ResNet(depth=18), [Level(f"P{i}", 256, 2**i) for i in range(2, 6)])
    assert [count(m) for m in head.body if count(m)] == [12_846_080, 1_049_600]
    assert (count(head.cls), count(head.box)) == (1024 * 21 + 21, 1024 * 80 + 80)


@pytest.mark.parametrize(("net", "size", "width"), [("resnet50", 14, 2048), ("resnet18", 14, 512), ("vgg16", 7, 4096)])
def test_a_single_c4_map_takes_the_backbones_tail(net: str, size: int, width: int) -> None:
    with torch.device("meta"):
        backbone = VGG16() if net == "vgg16" else ResNet(depth=int(net[6:]))
        c4 = [v for v in backbone.levels if v.name == "C4"]
        head = build(backbone, c4)
    assert head.pool.size == size
    assert head.cls.in_features == width


def test_pyramid_pooling_takes_fc_layers() -> None:
    with torch.device("meta"):
        backbone = ResNet(depth=18)
        head = build(backbone, [v for v in backbone.levels if v.name == "C4"], SpatialPyramidPool)
    assert head.body[1].in_features == 256 * 21
    assert backbone.layer4 is not None


def test_levels_of_unequal_channels_get_stems() -> None:
    backbone = ResNet(depth=18)
    head = build(backbone, [v for v in backbone.levels if v.name != "C2"], width=32)
    features = {v.name: torch.randn(1, v.channels, *v.size((128, 128))) for v in backbone.levels}
    out = head(features, torch.tensor([[0.0, 0, 0, 50, 50], [0, 10, 10, 120, 120]]))
    assert out.logits.shape == (2, 21)
    assert out.deltas.shape == (2, 20, 4)


@pytest.mark.parametrize("pool", [RoIAlign, SpatialPyramidPool])
def test_a_roi_head_without_hidden_layers(pool: type) -> None:
    """The two last layers read the pooled features themselves."""
    levels = [Level("P4", 6, 16)]
    head = roi_head(
        levels=levels,
        backbone=Tiny(),
        pool=pool,
        cls_loss=CrossEntropyLoss(),
        num_classes=3,
        body="fc",
        depth=0,
        width=16,
    )
    rois = torch.tensor([[0.0, 0, 0, 60, 60], [0, 10, 10, 100, 90]])
    found = head({"P4": torch.randn(1, 6, 8, 8)}, rois)
    assert found.logits.shape == (2, 4)
    assert found.deltas.shape == (2, 3, 4)
    assert head.cls.in_features == head.width == 6 * head.pool.bins


def test_class_agnostic_boxes() -> None:
    head = build(ResNet(depth=18), PYRAMID[:3], class_agnostic=True, width=16)
    assert head.box.out_features == 4


def test_a_tail_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="model/head=tail needs one C4 map"):
        build(ResNet(depth=18), PYRAMID, body="tail")


def test_a_backbone_without_a_tail_gets_new_layers() -> None:
    backbone, c4 = Tiny(), [Level("C4", 8, 16)]
    assert build(backbone, c4, width=32).body[1].in_features == 8 * 49
    with pytest.raises(ValueError, match="the backbone Tiny has none to give; use model/head=fc"):
        build(backbone, c4, body="tail")
    with pytest.raises(ValueError, match="Tiny has no layers behind C4"):
        backbone.take_tail()


def test_truncated_svd_keeps_the_largest_part() -> None:
    """Full rank changes nothing; rank 1 of diag(3, 2) keeps the 3."""
    body = FCHead(6, width=4, depth=2)
    x = torch.randn(5, 6)
    torch.testing.assert_close(truncate_svd(body, [4, 4])(x), body(x), atol=1e-5, rtol=1e-4)
    assert [tuple(m.weight.shape) for m in truncate_svd(body, [2]) if isinstance(m, torch.nn.Linear)] == [
        (2, 6), (4, 2), (4, 4),
    ]  # fmt: skip
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(layer.bias)
    layer.weight.data = torch.diag(torch.tensor([3.0, 2.0]))
    found = truncate_svd(torch.nn.Sequential(layer), [1])(torch.eye(2))
    torch.testing.assert_close(found, torch.diag(torch.tensor([3.0, 0.0])))
    with pytest.raises(ValueError, match="must lie between 1 and 2"):
        truncate_svd(torch.nn.Sequential(layer), [3])
    with pytest.raises(ValueError, match="the head has 1; give fewer"):
        truncate_svd(torch.nn.Sequential(layer), [1, 1])


def test_a_graph_of_yolov1s_head_leaves_the_number_of_images_open() -> None:
    parts = {"cls_loss": SquaredClassLoss(), "obj_loss": SquaredObjectness(), "num_classes": 3}
    head = GridHead(levels=[Level("C5", 8, 32)], num_anchors=[2], canvas=64, width=4, **parts).eval()
    batch = {"C5": {0: torch.export.Dim("batch", min=1, max=8)}}
    graph = torch.export.export(head, ({"C5": torch.rand(2, 8, 2, 2)},), strict=False, dynamic_shapes=(batch,)).module()
    for number in (1, 3):
        maps = {"C5": torch.rand(number, 8, 2, 2)}
        for found, wanted in zip(graph(maps), head(maps), strict=True):
            torch.testing.assert_close(found, wanted)
