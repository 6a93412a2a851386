"""Detection on a CPU by another runtime than torch, in graphs that are made when they are needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from detlab.detectors.detector import Detector
from detlab.detectors.graph import TOLERANCE, disagreement, example, in_onnxruntime, in_openvino, traced, write_onnx
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch, Detections

TORCH = "torch"
ROOM = 1.5  # a graph takes batches that fill at least 1 / ROOM of its canvas


class Detects(Protocol):
    """What prediction needs of a detector."""

    def detect(self, batch: Batch) -> Detections:
        """Detections in canvas pixels."""


class Runtime(NamedTuple):
    """A library that runs ONNX files."""

    extra: str  # of detlab
    modules: tuple[str, ...]  # that must be there
    read: Callable[[Path], Callable[..., Detections]]


RUNTIMES = {
    "onnxruntime": Runtime("export", ("onnx", "onnxscript", "onnxruntime"), in_onnxruntime),
    "openvino": Runtime("openvino", ("onnx", "onnxscript", "openvino"), in_openvino),
}


class Shape(NamedTuple):
    """The inputs of a graph."""

    images: int
    canvas: tuple[int, int]  # (height, width), px


def check_runtime(runtime: str, device: torch.device, precision: str = "fp32") -> None:
    """Refuse a runtime that is unknown or not installed, and what only torch does.

    Raises:
        ConfigError: names the option.
    """
    if runtime == TORCH:
        return
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime={runtime} is not known; use one of {', '.join((TORCH, *RUNTIMES))}.")
    if device.type != "cpu":
        raise ConfigError(f"device={device} does not fit runtime={runtime}, which runs on a CPU; use device=cpu.")
    if precision != "fp32":
        raise ConfigError(
            f"precision={precision} does not fit runtime={runtime}, which computes in float32; use precision=fp32."
        )
    missing = [name for name in RUNTIMES[runtime].modules if not _is_there(name)]
    if missing:
        raise ConfigError(
            f"runtime={runtime} needs {missing[0]}; install detlab[{RUNTIMES[runtime].extra}], or use runtime=torch."
        )


class InRuntime:
    """Detects what a detector does, by graphs of it.

    A graph is for one canvas and one number of images; it lies in a temporary folder as long as this object lives. A
    batch runs in the smallest graph that holds it: black rows and columns fill the canvas as they do in a batch with
    larger images, black images fill the number. A canvas that would leave more than a third of every graph black gets
    a graph of its own, and so does a smaller number of images when it comes again.

    Args:
        detector: in evaluation mode, on the CPU; it must not change afterwards.
        runtime: a name of `RUNTIMES`.

    Raises:
        ConfigError: the family's boxes come with the images.
    """

    def __init__(self, detector: Detector, runtime: str) -> None:
        if detector.box_source == "proposals":
            raise ConfigError(
                f"runtime={runtime} cannot run {type(detector).__name__}, whose proposals come with each image and are "
                f"not part of a graph; use runtime=torch."
            )
        self.detector, self.runtime = detector, runtime
        self.graphs: dict[Shape, Callable[..., Detections]] = {}
        self._filled: set[Shape] = set()  # that ran in a graph of more images
        self._folder = tempfile.TemporaryDirectory(prefix="detlab-")

    def detect(self, batch: Batch) -> Detections:
        """Detections in canvas pixels.

        Raises:
            ConfigError: a new graph detects something else in the first image than torch does.
        """
        number, (height, width) = len(batch.images), batch.canvas
        shape = self._shape(Shape(number, batch.canvas))
        images = torch.zeros(shape.images, 3, *shape.canvas, dtype=torch.uint8)
        images[:number, :, :height, :width] = batch.images
        sizes = torch.tensor([shape.canvas] * shape.images)
        sizes[:number] = batch.sizes
        if shape not in self.graphs:
            graph = self._made(shape)
            one = Batch(images[:1], sizes[:1], sizes[:1], batch.ids[:1])
            self._check(Detections(*(rows[:1] for rows in graph(images, sizes))), self.detector.detect(one))
            self.graphs[shape] = graph
        return Detections(*(rows[:number] for rows in self.graphs[shape](images, sizes)))

    def _shape(self, wanted: Shape) -> Shape:
        """The smallest graph that takes a batch; a new one's shape if there is none."""
        most = ROOM * _area(wanted)
        fitting = [
            shape
            for shape in self.graphs
            if shape.images >= wanted.images
            and all(side <= room for side, room in zip(wanted.canvas, shape.canvas, strict=True))
            and _area(shape) <= most
        ]
        found = min(fitting, key=lambda shape: shape.images * _area(shape), default=wanted)
        if found.images > wanted.images:
            if wanted in self._filled:
                return wanted
            self._filled.add(wanted)
        return found

    @torch.inference_mode(False)
    def _made(self, shape: Shape) -> Callable[..., Detections]:
        path = Path(self._folder.name) / f"{len(self.graphs)}.onnx"
        write_onnx(traced(self.detector, example(*shape)), path)
        return RUNTIMES[self.runtime].read(path)

    def _check(self, found: Detections, expected: Detections) -> None:
        difference = disagreement(found, expected)
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"runtime={self.runtime} gives other detections than torch (difference {difference:.1e}); use "
                f"runtime=torch."
            )


def _area(shape: Shape) -> int:
    return shape.canvas[0] * shape.canvas[1]


def _is_there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds None for it
        return False
