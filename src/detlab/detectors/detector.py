"""Interface of detectors: losses of a batch, detections of a batch, and the features that both are computed from."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from detlab.model.backbones import Backbone
from detlab.model.necks import Neck
from detlab.tensors.convs import gather_on_small_maps, refuse_narrow_strides
from detlab.tensors.structures import Batch, Detections, Proposals

Made = TypeVar("Made")
Features = dict[str, Tensor]  # {neck level: [B, C, h, w]}


class SharedFeatures(Features):
    """Features of an evaluation, with what its loss and its detection both need; see `once`."""

    def __init__(self, maps: Features) -> None:
        super().__init__(maps)
        self.made: dict[str, Any] = {}


def once(features: Features, name: str, make: Callable[[], Made]) -> Made:
    """What `make` gives, made once where the features are shared by a loss and a detection."""
    if not isinstance(features, SharedFeatures):
        return make()
    if name not in features.made:
        features.made[name] = make()
    return features.made[name]


class Selection(Protocol):
    """The step that selects the final boxes, as far as test-time augmentation needs to know it."""

    @property
    def nms_threshold(self) -> float:
        """IoU above which the lower-scored one of two boxes is dropped."""

    @property
    def max_detections(self) -> int:
        """Boxes kept per image in testing."""


class Evaluated(NamedTuple):
    """What one pass over a batch gives in validation and testing."""

    losses: dict[str, Tensor]  # empty where they were not asked for
    detections: Detections  # canvas pixels
    proposals: Proposals | None  # see `Detector.first_stage`


class Detector(nn.Module, ABC):
    """A backbone, a neck, and the heads of a family.

    `loss` and `detect` are two methods, and no return type depends on `self.training`. Both accept features that have
    been computed already, so that one validation pass gives losses and detections.

    Class attributes are the facts of a family. The rules (`detlab.config.rules`) and the data layer read them; a
    family of your own sets those that differ from the defaults here.

    Args:
        num_classes: K, without background.
        backbone: built with all its levels; stages that nothing reads are removed at the end of `__init__`.
        neck: awaits levels, and the backbone's fc_weights if it has such an argument.
    """

    resize = "short_side"  # the family's default of data.resize
    class_agnostic = False  # labels collapse to one class; the metric is proposal recall
    reads: Literal["maps", "rois", "crops"] = "maps"  # input of the last head: whole maps, RoIs of maps, warped crops
    box_source: Literal["anchors", "rpn", "proposals"] = "anchors"  # origin of the boxes that it classifies
    gives_cells = False  # whether matcher and coder get the cell of each anchor's map position (YOLO)
    scores_objectness = False  # whether it scores objectness separately from the class (YOLO)
    fits_linear_models = False  # whether SVMs and ridge regression can be fitted to cached features of fixed regions
    class_names: tuple[str, ...] = ()  # K names, where the weights come with them (`from_torchvision`)

    def __init__(self, *, num_classes: int, backbone: Backbone, neck: Callable[..., Neck]) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} must be at least 1; it comes from the data set's classes.")
        self.num_classes = num_classes
        self.backbone = backbone
        named = inspect.signature(neck).parameters
        facts: Mapping[str, Any] = {"fc_weights": backbone.fc_weights} if "fc_weights" in named else {}
        self.neck = neck(levels=backbone.levels, **facts)
        self._frozen: list[nn.Module] = []

    def seal(self) -> None:
        """Remove unread stages and make weights channels-last; call it last in a family's `__init__`.

        Raises:
            ValueError: a conv whose gradient torch computes wrongly, see `refuse_narrow_strides`.
        """
        self.backbone.keep(self.neck.reads)
        refuse_narrow_strides(self)
        gather_on_small_maps(self)
        self.to(memory_format=torch.channels_last)

    @property
    def selection(self) -> Selection | None:
        """The step that selects the final boxes: `final`; None for a family that selects in its own way."""
        return getattr(self, "final", None)

    def freeze(self, names: Iterable[str]) -> None:
        """Freeze tensors permanently: no gradient, and their modules stay in evaluation mode.

        Args:
            names: as in `state_dict`; a module is frozen when all its own tensors are named.
        """
        names = set(names)
        for prefix, module in self.named_modules():
            own = [*module.named_parameters(prefix, recurse=False), *module.named_buffers(prefix, recurse=False)]
            if own and names.issuperset(name for name, _ in own):
                self._frozen.append(module)
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As nn.Module; frozen modules stay in evaluation mode, so that their batch statistics do not change."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def features(self, batch: Batch) -> Features:
        """The neck's maps for a batch of uint8 images."""
        return self.neck(self.backbone(self.backbone.normalize(batch.images, batch.sizes)))

    @abstractmethod
    def loss(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor]:
        """Weighted losses by name, scalars; the total is their sum."""

    @abstractmethod
    def detect(self, batch: Batch, features: Features | None = None) -> Detections:
        """Detections in canvas pixels."""

    def evaluate(self, batch: Batch, *, with_loss: bool = True) -> Evaluated:
        """Losses, detections and proposals of a batch.

        What `loss`, `detect` and `first_stage` make by `once`, such as the head's outputs, they make once in all.
        """
        features = SharedFeatures(self.features(batch))
        losses = self.loss(batch, features) if with_loss else {}
        return Evaluated(losses, self.detect(batch, features), self.first_stage(batch, features))

    def first_stage(self, batch: Batch, features: Features) -> Proposals | None:
        """Proposals that an earlier stage or a file gives the last stage in testing; None for a single stage."""
        return batch.proposals
