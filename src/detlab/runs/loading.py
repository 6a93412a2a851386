"""Load a trained detector from a run folder or checkpoint for prediction: `detlab.load(...)`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.config.parts import build_part
from detlab.config.validate import validate_node
from detlab.data.audit import MANY
from detlab.data.audit import names as listed
from detlab.data.dataset import Collate
from detlab.data.images import MAX_PIXELS
from detlab.data.proposals.store import Boxes, grid_proposals
from detlab.data.transforms import Resize
from detlab.data.unlabelled import Picture, as_pictures, batches_of_images
from detlab.detectors import Detector
from detlab.detectors.runtimes import TORCH, Detects, InRuntime, check_runtime
from detlab.errors import ConfigError
from detlab.model.detect import to_original
from detlab.model.overflow import overflow_note, overflowed
from detlab.runs.checkpoints import Checkpoint, find_checkpoint, model_without_download, read_checkpoint
from detlab.runs.shapes import check_shapes
from detlab.tensors.norms import cast_weights, fold_norms
from detlab.tensors.structures import Batch, Detections

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
LONGEST = 8  # longer sides are bounded by so many times data.size where the run bounds them by no max_size


class OverflowWarning(UserWarning):
    """Some images have no detections because the network's values are not finite."""


class Loaded:
    """A detector in evaluation mode with everything needed for prediction.

    Attributes:
        detector: for prediction only, since its batch norms are folded into the convs
            (`detlab.tensors.norms.fold_norms`) and its weights cast; `checkpoint.state` holds the trained weights.
        class_names, category_ids, config, resize, collate: the same as in its run.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        tta: Mapping[str, Any] | None = None,
        runtime: str = TORCH,
        precision: str = "fp32",
    ) -> None:
        self.checkpoint = checkpoint
        self.config, self.class_names = checkpoint.config, checkpoint.class_names
        self.category_ids = checkpoint.category_ids
        self.device = torch.device(device)
        self._dtype = _format_of(precision)
        check_runtime(runtime, self.device, precision)
        self.detector = fold_norms(detector_of(checkpoint)).to(self.device)
        if self._dtype != torch.float32:
            cast_weights(self.detector, self._dtype)
        data = self.config["data"]
        _check_data(checkpoint)
        mode = data.get("resize") or self.detector.resize
        size, most = data["size"], data.get("max_size")
        self.resize = Resize(mode=mode, size=size, max_size=most or (LONGEST * size if mode == "short_side" else None))
        self._proposal_count = data.get("proposal_count", 1000)
        canvas, divisor = data.get("canvas"), data.get("size_divisor", 32)
        self.collate = Collate(divisor=divisor, canvas=tuple(canvas) if canvas else self.resize.canvas)
        views = tta or self.config.get("tta")
        self.tta = build_part(views)(self.detector, divisor=divisor) if views else None
        self._detects = self._in(runtime)

    def predict(
        self,
        images: Picture | Iterable[Picture],
        *,
        score_threshold: float = 0.0,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
        proposals: Sequence[np.ndarray] | None = None,
    ) -> list[dict[str, Any]]:
        """Detections of each image in its own pixels.

        Args:
            images: one or several of: paths of images, of folders (all images below them), patterns such as
                "images/*.jpg"; PIL images of any mode, rotated as their EXIF says, as files are; uint8 RGB arrays
                [H, W, 3] or greys [H, W]; uint8 RGB tensors [3, H, W]. Arrays of OpenCV are BGR: give
                array[..., ::-1].
            score_threshold: lower scores are dropped, in addition to the detector's own threshold.
            classes: names of the classes to keep of what the detector finds (at most model.detect.max_detections of
                all classes); None for all.
            batch_size: images per pass.
            proposals: boxes [r, 4] xyxy of each image in its own pixels, for families that need them; None for a
                grid of boxes, with a warning.

        Returns:
            One dict per image, in the given order, files of a folder or pattern by name: boxes [n, 4] float32 xyxy,
            scores [n], labels [n] (numpy, by descending score), names, and file (a path; None for pixels).

        Raises:
            ConfigError: a path does not exist, a folder or pattern has no image, or a class is unknown.
            ImageError: a file is no readable image; the message names it.
            ValueError: pixels of another type or shape.

        Warns:
            OverflowWarning: the network's values are not finite for some images.
        """
        names, wanted, before = self.names, self.labels_of(classes), overflowed(self.detector)
        pictures = as_pictures(images)
        results: list[dict[str, Any]] = []
        for _, found in self.batches(pictures, batch_size, proposals):
            for boxes, scores, labels in zip(*found, strict=True):
                keep = (labels >= 0) & (scores >= score_threshold)
                if wanted is not None:
                    keep &= torch.isin(labels, torch.tensor(wanted, dtype=labels.dtype))
                kept, picture = labels[keep].numpy(), pictures[len(results)]
                results.append(
                    {
                        "boxes": boxes[keep].numpy(),
                        "scores": scores[keep].numpy(),
                        "labels": kept,
                        "names": [names[i] for i in kept],
                        "file": str(picture) if isinstance(picture, str | Path) else None,
                    }
                )
        if count := overflowed(self.detector) - before:
            note = overflow_note(count, len(results), str(self.checkpoint.path))
            warnings.warn(note, OverflowWarning, stacklevel=2)
        return results

    def _in(self, runtime: str) -> Detects:
        """What detects: the detector, its views, or its graphs.

        Raises:
            ConfigError: another runtime than torch has no such views, or cannot run the family.
        """
        views = self.tta if self.tta is not None and self.tta.active else None
        if runtime == TORCH:
            return views or self.detector
        if views is not None:
            raise ConfigError(f"tta does not fit runtime={runtime}, which sees each image once; use tta=none.")
        return InRuntime(self.detector, runtime)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by label: the classes, or "object" for a detector that tells none apart."""
        return ("object",) if self.detector.class_agnostic else self.class_names

    def labels_of(self, classes: Sequence[str] | None) -> list[int] | None:
        """The labels of class names; None for all classes.

        Raises:
            ConfigError: the model has no class of a name.
        """
        if classes is None:
            return None
        wanted = [classes] if isinstance(classes, str) else [str(name) for name in classes]
        unknown = [name for name in wanted if name not in self.names]
        if unknown or not wanted:
            raise ConfigError(
                f"classes={wanted} "
                + (f"names {unknown[0]!r}, which the model lacks" if unknown else "names no class")
                + f"; it has {listed(self.names, MANY)}."
            )
        return [self.names.index(name) for name in wanted]

    @torch.inference_mode()
    def batches(
        self,
        images: Sequence[Picture],
        batch_size: int,
        proposals: Sequence[np.ndarray] | None = None,
    ) -> Iterator[tuple[Batch, Detections]]:
        """Batches and their detections, in pixels of the original images, on the CPU."""
        propose = self._proposing(proposals) if self.detector.box_source == "proposals" else None
        for batch in batches_of_images(
            images, resize=self.resize, collate=self.collate, batch_size=batch_size, propose=propose
        ):
            on_device = batch.to(self.device)
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                found = self._detects.detect(on_device)
            yield batch, to_original(found, on_device).to("cpu")

    def _proposing(self, given: Sequence[np.ndarray] | None) -> Callable[[int, tuple[int, int]], Boxes]:
        """A function (index of an image, (height, width)) -> its proposals: the given ones, or a grid."""
        if given is None:
            warnings.warn(
                f"{type(self.detector).__name__} reads proposals: a grid of about {self._proposal_count} boxes is "
                f"made per image; give better ones with predict(proposals=[boxes of each image]).",
                stacklevel=2,
            )
            return lambda number, size: grid_proposals(size, self._proposal_count)
        boxes = [np.asarray(b, np.float32).reshape(-1, 4) for b in given]
        return lambda number, size: (boxes[number], np.ones(len(boxes[number]), np.float32))


def load(
    run: str | Path,
    *,
    ckpt: str = "best",
    device: str = "cpu",
    trust: Sequence[str] = (),
    tta: str | Mapping[str, Any] | None = None,
    runtime: str = TORCH,
    precision: str = "fp32",
) -> Loaded:
    """Load a run folder or a checkpoint file, offline.

    Args:
        run: run folder or checkpoint file.
        ckpt: "best" or "last", for a folder.
        trust: your own packages that the config may name.
        tta: an option of conf/tta such as "multiscale", or its keys as a mapping; None for the run's own setting.
        runtime: "torch", or on a CPU "onnxruntime" or "openvino" (`detlab.detectors.runtimes`).
        precision: "fp32", or "bf16" for torch's autocast with weights that are cast once.

    Raises:
        ConfigError: the checkpoint does not exist or cannot be trusted, or the runtime cannot run it.
    """
    _format_of(precision)
    views = plain_config(compose_config("predict", [f"tta={tta}"]), ["tta"])["tta"] if isinstance(tta, str) else tta
    return Loaded(read_checkpoint(find_checkpoint(run, ckpt), trust), device, views, runtime, precision)


def _format_of(precision: str) -> torch.dtype:
    if precision not in FORMATS:
        raise ConfigError(f"precision={precision} is not known; use one of {', '.join(FORMATS)}.")
    return FORMATS[precision]


def _check_data(checkpoint: Checkpoint) -> None:
    """Refuse a stranger's options of images: another type, or larger than any image may be.

    Raises:
        ConfigError: names the option.
    """
    data = checkpoint.config["data"]
    if type(data.get("_target_")) is not str or "size" not in data:
        raise ConfigError(f"{checkpoint.path} is no checkpoint of detlab train: its data has no _target_ or no size.")
    try:
        validate_node(data, "data")
    except ConfigError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from error
    for key in ("size", "max_size", "canvas"):
        sides = data.get(key) or 1
        if max(sides if isinstance(sides, list) else [sides]) ** 2 > MAX_PIXELS:
            raise ConfigError(f"{checkpoint.path} holds data.{key}={sides}, canvases of more than {MAX_PIXELS:,} px.")


def detector_of(checkpoint: Checkpoint) -> Detector:
    """Build the detector of a checkpoint and load its weights.

    Raises:
        ConfigError: the model cannot be built, or the tensors do not match the model.
    """
    try:
        model, classes = model_without_download(checkpoint.config), len(checkpoint.class_names)
        if "_target_" not in model:
            raise ConfigError("its model has no _target_; give a checkpoint as detlab train wrote it.")
        validate_node(model, "model")
        check_shapes(model, classes, checkpoint.state)
        detector = make_detector(model, classes)
        detector.load_state_dict(checkpoint.state)
    except ConfigError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from error
    except Exception as error:  # wrong values in an untrusted file raise many types of errors
        reason = str(error).strip().partition("\n")[0][:160]
        raise ConfigError(
            f"{checkpoint.path} holds a model that cannot be built, or that its tensors do not fit "
            f"({type(error).__name__}: {reason})."
        ) from error
    return detector
