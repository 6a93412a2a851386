"""Batch norms folded into the convs before them give what evaluation mode gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.tensors.norms import FOLDED, cast_weights, fold_norms
from detlab.tensors.structures import Batch

SMALL = ["model.backbone.depth=18", "model.neck.width=32"]
MODELS = [
    ["model=retinanet", *SMALL],
    ["model=retinanet", "model.backbone.depth=50", "model.neck.width=32"],  # bottlenecks
    ["model=retinanet", *SMALL, "model.backbone.norm=frozen_bn", "model.neck.norm=bn", "model.head.norm=bn"],
    ["model=retinanet", *SMALL, "model.backbone.norm=gn", "model.head.norm=gn"],
    ["model=faster_rcnn", *SMALL, "model.head.convs=1", "model.head.norm=bn", "model.head.width=32"],
    ["model=faster_rcnn", "model.backbone.depth=18", "model/neck=none"],  # conv5 as the head
]


@pytest.mark.parametrize("overrides", MODELS, ids=lambda o: ",".join(v.replace("model", "") for v in o))
def test_a_folded_detector_detects_the_same(overrides: list[str], small_batch: Batch) -> None:
    model = plain_config(compose_config("train", overrides), ["model"])["model"]
    detector = make_detector(model, 3).eval()
    for module in detector.modules():
        if isinstance(module, FOLDED):  # statistics and weights as training leaves them
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.1, 0.1)
    with torch.no_grad():
        before = detector.detect(small_batch), detector.features(small_batch)
        folded = fold_norms(detector)
        after = folded.detect(small_batch), folded.features(small_batch)
    for name, expected in before[1].items():
        assert (after[1][name] - expected).abs().max() < 1e-4 * expected.abs().max()
    torch.testing.assert_close(after[0].scores, before[0].scores, rtol=1e-3, atol=1e-4)
    assert folded is detector
    assert not [m for m in folded.modules() if isinstance(m, FOLDED)]
    assert not folded.training


def test_by_hand() -> None:
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)
    with torch.no_grad():
        for tensor, value in zip((conv.weight, conv.bias, norm.weight, norm.bias), (3, 1, 2, 5), strict=True):
            tensor.fill_(value)
    norm.running_mean.fill_(4)
    norm.running_var.fill_(16)
    folded = fold_norms(nn.Sequential(conv, norm))
    assert folded[0].weight.item() == 1.5  # 3 * 2 / 4
    assert folded[0].bias.item() == 3.5  # (1 - 4) * 2 / 4 + 5
    assert isinstance(folded[1], nn.Identity)


class Activated(nn.BatchNorm2d):
    """A norm that does more, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class PreActivated(nn.Module):
    """A block of somebody's backbone that registers its layers in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


SHARED = nn.Conv2d(4, 4, 1)
LEFT = {
    "no conv before it": nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    "a norm that does more": nn.Sequential(nn.Conv2d(4, 4, 1), Activated(4)),
    "another order": nn.Sequential(PreActivated()),
    "a conv with two norms": nn.Sequential(
        nn.Sequential(SHARED, nn.BatchNorm2d(4)), nn.Sequential(SHARED, nn.BatchNorm2d(4))
    ),
    "no statistics": nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
}


@pytest.mark.parametrize("why", LEFT)
def test_what_must_not_be_folded_stays(why: str) -> None:
    layers, x = LEFT[why].eval(), torch.randn(2, 4, 3, 3)
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
    with torch.no_grad():
        before = layers(x)
        torch.testing.assert_close(fold_norms(layers)(x), before)
    assert any(isinstance(module, nn.BatchNorm2d) for module in layers.modules())


class Shared(nn.Module):
    """A parameter that a linear layer and another layer read, which autocast would not cast for both."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.sum()


def test_weights_are_cast_where_autocast_would() -> None:
    linear = nn.Linear(4, 4)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 4, 2), nn.Linear(5, 4), linear
    )
    layers.append(Shared(linear.weight)).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = layers(x)
        after = cast_weights(layers, torch.bfloat16)(x)
    assert torch.equal(before, after)
    kept = [name for name, parameter in layers.named_parameters() if parameter.dtype == torch.float32]
    assert kept == ["1.weight", "1.bias", "2.weight", "2.bias", "5.weight"]
    assert layers[1].running_var.dtype == torch.float32


@torch.no_grad()
def test_a_detector_with_cast_weights_detects_the_same(small_batch: Batch) -> None:
    overrides = ["model=retinanet", "model.neck.width=32", "model.head.width=32", "model.head.norm=gn"]
    model = plain_config(compose_config("train", overrides), ["model"])["model"]
    model["backbone"] = {"_target_": "tests.tiny.Tiny"}
    detector = fold_norms(make_detector(model, 3).eval())
    nn.init.normal_(detector.head.cls.weight, std=0.5)
    nn.init.zeros_(detector.head.cls.bias)
    with torch.autocast("cpu", torch.bfloat16):
        before = detector.detect(small_batch)
        after = cast_weights(detector, torch.bfloat16).detect(small_batch)
    assert before.real.any()
    assert all(map(torch.equal, before, after))
