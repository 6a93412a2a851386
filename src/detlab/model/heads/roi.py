"""RoI heads: features of each RoI to class scores and boxes (Fast R-CNN; ResNet's C4 head; FPN's 2-fc head)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from detlab.model.backbones import Backbone
from detlab.model.losses import ClassificationLoss
from detlab.model.pools import Pool
from detlab.ranges import BelowOne, Count, Layers, OneOf
from detlab.tensors.norms import LayerNorm, norm_layer
from detlab.tensors.structures import Level, Prediction

STEM_WIDTH = 256  # channels that levels of unequal width are brought to, as in FPN


class RoIHead(nn.Module):
    """Pool, body, and the two sibling linear layers (Fast R-CNN section 2.1).

    Args:
        pool: features and RoIs [N, 5] -> [N, C, size, size] or [N, C * bins].
        body: pooled features -> [N, width].
        width: features the body gives.
        cls_loss: says how many logits a RoI has.
        num_classes: K, without background.
        class_agnostic: one box per RoI instead of one per class.
    """

    reads = "vectors"  # of pooled regions

    def __init__(
        self,
        *,
        pool: Pool,
        body: nn.Module,
        width: int,
        cls_loss: ClassificationLoss,
        num_classes: int,
        class_agnostic: bool,
    ) -> None:
        super().__init__()
        self.pool, self.body, self.width = pool, body, width
        self.cls = nn.Linear(width, cls_loss.outputs(num_classes))
        self.box = nn.Linear(width, 4 * (1 if class_agnostic else num_classes))
        nn.init.normal_(self.cls.weight, std=0.01)  # Fast R-CNN section 2.3
        nn.init.normal_(self.box.weight, std=0.001)
        nn.init.zeros_(self.cls.bias)
        nn.init.zeros_(self.box.bias)

    @property
    def has_batch_norm(self) -> bool:
        """Whether padded RoIs would leak into batch statistics."""
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
        return any(isinstance(module, kinds) for module in self.modules())

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Prediction:
        """RoIs [N, 5] (batch index, x1, y1, x2, y2; canvas px) -> logits [N, O], deltas [N, K or 1, 4]."""
        return self.predict(self.describe(features, rois))

    def describe(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """RoIs [N, 5] -> the input of the two last layers, [N, width]."""
        return self.body(self.pool(features, rois))

    def predict(self, x: Tensor) -> Prediction:
        """Features [..., width] -> logits [..., O], deltas [..., K or 1, 4]."""
        return Prediction(self.cls(x), self.box(x).unflatten(-1, (-1, 4)))


class FlattenMap(nn.Flatten):
    """[N, C, h, w] -> [N, h * w * C], by row, column, channel: the order in which a channels-last map lies in memory.

    In a step of Faster R-CNN with 1024 RoIs, the order (channel, row, column) would copy 51 MB four times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A view where x is channels-last; vectors [N, F] stay as they are."""
        return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x


class FCHead(nn.Sequential):
    """Fully connected layers with ReLU on the flattened RoI features (FPN section 4.2: two of 1024).

    [N, features] or [N, C, h, w] -> [N, width].
    """

    def __init__(self, features: int, *, width: int, depth: int, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = [FlattenMap()]
        for i in range(depth):
            layers += [nn.Linear(features if i == 0 else width, width), nn.ReLU(inplace=True)]
            layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers)


class ConvFCHead(nn.Sequential):
    """3x3 convs with norm, then one fully connected layer (torchvision's v2 detectors: four convs of 256).

    [N, channels, h, w] with h * w = bins -> [N, width].
    """

    def __init__(self, channels: int, bins: int, *, convs: int, width: int, norm: str) -> None:
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
            layers += [norm_layer(norm, "model.head.norm")(channels), nn.ReLU(inplace=True)]
        layers += [FlattenMap(), nn.Linear(channels * bins, width), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def roi_head(
    *,
    levels: Sequence[Level],
    backbone: Backbone,
    pool: Callable[..., Pool],
    cls_loss: ClassificationLoss,
    num_classes: int,
    body: Annotated[str, OneOf(("auto", "tail", "fc"))] = "auto",
    width: Count = 1024,
    depth: Layers = 2,
    dropout: BelowOne = 0.0,
    convs: Layers = 0,
    norm: LayerNorm | None = None,
    size: Count | None = None,
    class_agnostic: bool = False,
) -> RoIHead:
    """Build the RoI head that fits the maps.

    Args:
        levels: maps the RoIs are read from.
        backbone: gives its tail (conv5 of a ResNet, fc6 and fc7 of VGG-16) where the head uses it.
        pool: awaits levels, size.
        body: "tail" for the backbone's own last layers, "fc" for new layers, "auto" for the tail on a single C4
            map that a spatial pool reads, new layers otherwise.
        width, depth, dropout: of the new fully connected layers; depth 0 reads the pooled features as they are.
        convs, norm: 3x3 convs before one fully connected layer.
        size: side of the pooled map; null takes the body's own (14 for conv5, 7 for fully connected layers).
        cls_loss, num_classes, class_agnostic: see `RoIHead`.

    Raises:
        ValueError: body="tail" where the backbone has no tail, or the levels or the pool do not fit it.
    """
    tail = backbone.tail
    spatial = pool(levels=levels, size=7).spatial
    if body == "tail" and tail is None:
        raise ValueError(
            f"model/head=tail takes over layers behind C4, but the backbone {type(backbone).__name__} has none to "
            f"give; use model/head=fc."
        )
    fits = tail is not None and len(levels) == 1 and (levels[0].stride, levels[0].channels) == (16, tail.channels)
    if body == "tail" and tail is not None and not (fits and spatial):
        raise ValueError(
            f"model/head=tail needs one C4 map of {tail.channels} channels and a pool with a spatial map, but the "
            f"levels are {[level.name for level in levels]}; use model/neck=none and model/pool=roi_align, or "
            f"model/head=fc."
        )
    head = partial(RoIHead, cls_loss=cls_loss, num_classes=num_classes, class_agnostic=class_agnostic)
    if tail is not None and body in ("tail", "auto") and fits and spatial:
        pooled = pool(levels=levels, size=size or tail.size)
        return head(pool=pooled, body=backbone.take_tail(), width=tail.width)
    entry, pooled = levels[0].channels, pool(levels=levels, size=size or 7)
    if any(level.channels != entry for level in levels):
        entry, pooled = STEM_WIDTH, StemmedPool(pooled, levels, STEM_WIDTH)
    if convs:
        inner: nn.Module = ConvFCHead(entry, pooled.bins, convs=convs, width=width, norm=norm or "bn")
    else:
        inner = FCHead(entry * pooled.bins, width=width, depth=depth, dropout=dropout)
        for module in inner.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
    return head(pool=pooled, body=inner, width=width if convs or depth else entry * pooled.bins)


class StemmedPool(nn.Module):
    """A pool over levels of unequal channels: a 1x1 conv first brings those that differ to one width."""

    def __init__(self, pool: Pool, levels: Sequence[Level], channels: int) -> None:
        super().__init__()
        self.pool, self.channels = pool, channels
        self.bins, self.spatial = pool.bins, pool.spatial
        differ = [level for level in levels if level.channels != channels]
        self.stems = nn.ModuleDict({lv.name: nn.Conv2d(lv.channels, channels, 1) for lv in differ})

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Maps {level: [B, C, h, w]} and RoIs [N, 5] -> the features that the inner pool gives."""
        even = {name: self.stems[name](x) if name in self.stems else x for name, x in features.items()}
        return self.pool(even, rois)
