"""Training stages of R-CNN and SPPnet (R-CNN section 2.3, appendices B and C; SPPnet section 4.1).

    1-fine-tune  the network with its softmax head
    2-features   inputs of its last layers for every region and ground-truth box, cached image by image
    3-svm        a linear SVM per class: ground-truth boxes against regions with low IoU
    4-ridge      a ridge regression per class: box offsets of regions close to a ground-truth box

The result is the network of stage 1 with stage 3 as its classification layer (`cls_loss=hinge`) and stage 4 as its
box layer, so it is an ordinary detector. Deviation from R-CNN: boxes are regressed from the same features as the
classes (the last hidden layer) and not from pool5, whose vectors (VGG-16: 25,088) are too large to cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from detlab.detectors import Detector
from detlab.detectors.on_proposals import given
from detlab.detectors.roi_detector import RoIDetector
from detlab.errors import ConfigError
from detlab.model.coders import BoxCoder
from detlab.model.linear import BoxRidge, LinearModel, MinedSVM, NormMeter, without_duplicates
from detlab.ranges import Count, Fraction, NonNegative, OneOf, Positive
from detlab.tensors.boxes import pairwise_overlap
from detlab.tensors.ranks import meet, own_share
from detlab.tensors.structures import Batch
from detlab.training.feature_cache import Arrays, ImageCache
from detlab.training.stages.stage import (
    HandOver,
    Length,
    LengthOptions,
    Stages,
    fill_cache,
    progress,
    unaugmented,
    write_tensors,
)

NAMES = ("fine-tune", "features", "svm", "ridge")
NORM_IMAGES = 200  # images from which the mean feature norm is computed (R-CNN's rcnn_feature_stats.m)
DTYPES = {"float16": torch.float16, "float32": torch.float32}


class Regions(NamedTuple):
    """The cached regions of an image: r proposals and ground-truth boxes; features are read from disk on demand."""

    cache: ImageCache
    id: int
    boxes: Tensor  # [r, 4] canvas px
    labels: Tensor  # [r] int64; 0..K-1 for ground truth, -1 for proposals

    def features(self, rows: Tensor | None = None) -> Tensor:
        """Features [r, F], or of the given rows only."""
        mapped = self.cache.read(self.id)["features"]
        return torch.from_numpy(mapped[slice(None) if rows is None else rows.numpy()].copy())

    def overlap(self, label: int) -> Tensor:
        """IoU [r] with the best ground-truth box of a class; 0 if the image has none."""
        truth = self.boxes[self.labels == label]
        if not len(truth):
            return torch.zeros(len(self.boxes))
        return pairwise_overlap(truth[None], self.boxes[None])[0].amax(0)


class LinearSVM:
    """Trains R-CNN and SPPnet in the stages of their papers.

    Args:
        hand_over: "best" or "last", the fine-tuned checkpoint whose features are cached.
        fine_tune: {max_epochs, lr}; null for the run's own value.
        dtype: "float16" or "float32", format of the cached features.
        cost, bias, positive_weight, retrain_after: see `MinedSVM`.
        negative_iou: regions whose IoU with every box of a class is below it are negatives of the class.
        duplicate_iou: a negative whose IoU with an earlier one of the image is above it is dropped; null keeps all.
        ridge_lambda: see `BoxRidge`.
        ridge_iou: regions whose IoU with a box of a class is above it learn the offsets to their best box.
    """

    several = True  # several stages, each starting from the results of the previous one
    needs_linear_models = True

    def __init__(
        self,
        *,
        fine_tune: LengthOptions,
        hand_over: HandOver = "best",
        dtype: Annotated[str, OneOf(("float16", "float32"))] = "float16",
        cost: Positive = 1e-3,
        bias: NonNegative = 10.0,
        positive_weight: Positive = 2.0,
        negative_iou: Fraction = 0.3,
        duplicate_iou: Fraction | None = None,
        retrain_after: Count = 2000,
        ridge_lambda: Positive = 1000.0,
        ridge_iou: Fraction = 0.6,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"training.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
        self.length, self.hand_over, self.dtype = Length(**fine_tune), hand_over, DTYPES[dtype]
        self.svm = partial(MinedSVM, cost=cost, bias=bias, positive_weight=positive_weight, retrain_after=retrain_after)
        self.negative_iou, self.duplicate_iou = negative_iou, duplicate_iou
        self.ridge_lambda, self.ridge_iou = ridge_lambda, ridge_iou

    def __call__(self, config: dict[str, Any]) -> float | None:
        """Do the unfinished stages and test the result; returns the best monitored value of the fine-tuned network.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        if find_spec("sklearn") is None:
            raise ConfigError("training=svm needs scikit-learn; pip install 'detlab[svm]', or use training=joint.")
        stages = Stages(config, NAMES, self.hand_over, lengths=[self.length])
        stages.do(1, lambda: stages.train(1, self.length), "the network with its softmax head")
        stages.do(2, lambda: self._cache(stages), "features of all regions")
        stages.do(3, lambda: self._fit_svms(stages), "a linear SVM per class")
        stages.do(4, lambda: self._fit_ridges(stages), "a ridge regression of boxes per class")
        model = with_svms(config["model"])
        svms, ridges = self._fitted(stages, 3), self._fitted(stages, 4)
        state = stages.checkpoint(1).state | layers(svms, ridges, config["model"])
        return stages.finish(config | {"model": model}, {"best": state, "last": state}, stages.score(1))

    def _cache(self, stages: Stages) -> None:
        config = stages.config_of(2)
        describe = partial(describe_batch, dtype=self.dtype)
        data = unaugmented(config, "train")
        fill_cache(config, stages.checkpoint(1), data, "train", cache_of(stages), describe)
        ids = [item.id for item in data.records("test")]
        write_tensors(
            stages.folder(2) / "facts.pt", {"ids": torch.tensor(ids), "classes": torch.tensor(data.num_classes)}
        )

    def _fit_svms(self, stages: Stages) -> None:
        """Fit all classes in one pass over the images, since reading all features once per class takes too long."""
        images = list(regions_of(stages))
        meter = NormMeter()
        for image in images[:: max(1, len(images) // NORM_IMAGES)]:
            meter.add(image.features().float())
        scale, classes = meter.scale, own_share(class_count(stages))
        seed = stages.config["seed"]
        svms = {k: self.svm(scale * truth_of(images, k), seed=seed) for k in classes}
        for image in progress(images, "hard negatives"):
            features = scale * image.features().float()
            margins = margins_of(svms, features)
            for label, svm in svms.items():
                rows = self._negatives(image, label)
                svm.add(features[rows[margins[label][rows] > svm.hard_margin]])
        for label, svm in svms.items():
            weight, bias = svm.finish()
            write_tensors(
                stages.folder(3) / f"{label}.pt", {"weight": scale * weight, "bias": bias, "scale": torch.tensor(scale)}
            )
        meet()

    def _negatives(self, image: Regions, label: int) -> Tensor:
        """Rows of an image's negatives for a class."""
        rows = (image.overlap(label) < self.negative_iou).nonzero()[:, 0]
        if self.duplicate_iou is None:
            return rows
        return rows[without_duplicates(image.boxes[rows], self.duplicate_iou)]

    def _fit_ridges(self, stages: Stages) -> None:
        images = list(regions_of(stages))
        for label in progress(own_share(class_count(stages)), "box regression"):
            scale = float(torch.load(stages.folder(3) / f"{label}.pt", weights_only=True)["scale"])
            pairs = [self._pairs(image, label) for image in images]
            features = torch.cat([x for x, _ in pairs])
            weight, bias = BoxRidge(penalty=self.ridge_lambda, scale=scale).fit(
                features, torch.cat([y for _, y in pairs])
            )
            write_tensors(stages.folder(4) / f"{label}.pt", {"weight": scale * weight, "bias": bias})
        meet()

    def _pairs(self, image: Regions, label: int) -> tuple[Tensor, Tensor]:
        """Features [n, F] and target offsets [n, 4] of the regions close to a box of a class (`ridge_iou`)."""
        rows = (image.overlap(label) > self.ridge_iou).nonzero()[:, 0]
        truth, boxes = image.boxes[image.labels == label], image.boxes[rows]
        if not len(rows):
            return image.features(rows), torch.zeros(0, 4)
        best = pairwise_overlap(truth[None], boxes[None])[0].argmax(0)
        return image.features(rows), BoxCoder().encode(boxes, truth[best])

    def _fitted(self, stages: Stages, number: int) -> LinearModel:
        """The models of all classes, stacked."""
        files = [stages.folder(number) / f"{k}.pt" for k in range(class_count(stages))]
        found = [torch.load(file, weights_only=True) for file in files]
        return LinearModel(*(torch.stack([f[name] for f in found]) for name in ("weight", "bias")))


def describe_batch(detector: Detector, batch: Batch, *, dtype: torch.dtype) -> list[Arrays]:
    """features [r, F] and regions [r, 5] (box in canvas px, label) of each image's proposals and ground truth."""
    assert isinstance(detector, RoIDetector)  # the rules refuse linear models for other families
    truth, proposals = batch.truth, given(batch)
    boxes = torch.cat([proposals.boxes, truth.boxes], dim=1)
    used = torch.cat([proposals.real, truth.real & ~truth.crowd], dim=1)
    labels = torch.cat([torch.full_like(proposals.scores, -1), truth.labels.float()], dim=1)
    features = detector.roi_features(batch, boxes, used)
    regions = torch.cat([boxes, labels[..., None]], dim=2)
    return [
        {"features": f[u].to("cpu", dtype).numpy(), "regions": r[u].cpu().numpy()}
        for f, r, u in zip(features, regions, used, strict=True)
    ]


def with_svms(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config with SVM margins as scores and one box per class."""
    return {
        **model,
        "cls_loss": {"_target_": "detlab.model.losses.HingeLoss"},
        "head": {**model["head"], "class_agnostic": False},
    }


def layers(svms: LinearModel, ridges: LinearModel, model: Mapping[str, Any]) -> dict[str, Tensor]:
    """The head's last layers from SVMs [K, F], [K] and ridges [K, 4, F], [K, 4], scaled by the coder's weights."""
    factors = torch.tensor(model["coder"]["weights"])
    return {
        "head.cls.weight": svms.weight,
        "head.cls.bias": svms.bias,
        "head.box.weight": (factors[:, None] * ridges.weight).flatten(0, 1),
        "head.box.bias": (factors * ridges.bias).flatten(),
    }


def cache_of(stages: Stages) -> ImageCache:
    """The cache of the features."""
    return ImageCache(stages.folder(2) / "train", ("features", "regions"))


def class_count(stages: Stages) -> int:
    """Number of classes K, as stored by the features stage."""
    return int(torch.load(stages.folder(2) / "facts.pt", weights_only=True)["classes"])


def regions_of(stages: Stages) -> Iterator[Regions]:
    """The cached images, in the order of the data set."""
    cache = cache_of(stages)
    for id in torch.load(stages.folder(2) / "facts.pt", weights_only=True)["ids"].tolist():
        regions = torch.from_numpy(cache.read(id)["regions"].copy())
        yield Regions(cache, id, regions[:, :4], regions[:, 4].long())


def margins_of(svms: Mapping[int, MinedSVM], features: Tensor) -> dict[int, Tensor]:
    """{class: margins [r]} of features [r, F], in one matrix product.

    The margins of a class without a model yet are infinite, so that all its regions count as hard.
    """
    fitted = {label: svm.model for label, svm in svms.items() if svm.model is not None}
    endless = dict.fromkeys(svms, features.new_full((len(features),), torch.inf))
    if not fitted:
        return endless
    model = LinearModel(*(torch.stack([getattr(m, name) for m in fitted.values()]) for name in LinearModel._fields))
    return endless | dict(zip(fitted, model(features).unbind(1), strict=True))


def truth_of(images: list[Regions], label: int) -> Tensor:
    """Features [p, F] of the p ground-truth boxes of a class."""
    return torch.cat([image.features((image.labels == label).nonzero()[:, 0]) for image in images]).float()
