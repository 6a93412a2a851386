"""Export of a detector as one graph, NMS included: `torch.export` programs and ONNX files.

A graph is for one canvas, since anchors are constants of it, and for one batch size, since NMS runs image by image;
`any_batch` leaves the batch size open.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detlab.detectors import Detector
from detlab.detectors.on_proposals import ProposalDetector
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch, Detections

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}
TOLERANCE = 1e-3  # largest difference of scores, and of coordinates as a share of the largest one
OPSET = 18
MOST = 1024  # largest batch of a graph with an open batch size
INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels")


class Exported(nn.Module):
    """A detector as a function of tensors only."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if isinstance(detector, ProposalDetector):
            raise ConfigError(
                f"{type(detector).__name__} reads proposals that come with each image and are not part of a graph; "
                f"export a run of model=faster_rcnn, retinanet, ssd, refinedet, yolo or rpn."
            )
        self.detector = detector.eval()

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [B, D, 4] in canvas px, scores [B, D] and labels [B, D] (-1 where padded).

        Args:
            images: uint8 RGB [B, 3, H, W], each in the top left corner of its canvas.
            sizes: int64 [B, 2], (height, width) of the image inside the canvas.
        """
        ids = torch.zeros(images.shape[0], dtype=torch.int64, device=images.device)
        found = self.detector.detect(Batch(images, sizes, sizes, ids))
        return found.boxes, found.scores, found.labels


def example(batch: int, canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Inputs of a graph: noise images that fill their canvas, [B, 3, H, W] uint8, and their sizes [B, 2]."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *canvas), dtype=torch.uint8, generator=g)
    return images, torch.tensor([canvas] * batch)


@torch.no_grad()
def export(
    detector: Detector, path: Path, format: str, inputs: tuple[Tensor, Tensor], *, any_batch: bool = False
) -> Callable[..., Detections]:
    """Write a graph for inputs of this shape to `path`, and return it, read back, as a function of such inputs.

    Args:
        any_batch: leave the number of images open; `inputs` must hold at least two.

    Raises:
        ConfigError: an unknown format, a family without a graph, or a missing package.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format} is not known; use one of {', '.join(FORMATS)}.")
    program = traced(detector, inputs, any_batch=any_batch)
    if format == "torch_export":
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
        return lambda *given: Detections(*loaded(*given))
    return _onnx(program, path)


@torch.no_grad()
def traced(
    detector: Detector, inputs: tuple[Tensor, Tensor], *, any_batch: bool = False
) -> torch.export.ExportedProgram:
    """The program of a detector for inputs of this shape; see `export`.

    Raises:
        ConfigError: a family without a graph.
    """
    whole = Exported(detector)
    whole(*inputs)  # builds this canvas's anchors outside tracing, or they would be fake tensors
    batch = {0: torch.export.Dim("batch", min=1, max=MOST)} if any_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's NMS uses a call of torch's that has another name by now
        return torch.export.export(whole, inputs, strict=False, dynamic_shapes=(batch, batch) if any_batch else None)


def disagreement(found: Detections, expected: Detections) -> float:
    """Largest difference of scores, and of coordinates as a share of the largest one; inf if a box is missing.

    Detections are compared as sets, since rows of nearly equal score may be in another order.
    """
    side = expected.boxes.abs().max().clamp(min=1)
    worst = 0.0
    for i, real in enumerate(expected.real):
        own = found.real[i]
        if own.sum() != real.sum():
            return float("inf")
        if not real.any():
            continue
        boxes = (found.boxes[i][own][:, None] - expected.boxes[i][real]).abs().amax(2) / side
        scores = (found.scores[i][own][:, None] - expected.scores[i][real]).abs()
        other = found.labels[i][own][:, None] != expected.labels[i][real]
        apart = torch.maximum(boxes, scores).masked_fill(other, torch.inf)
        worst = max(worst, float(apart.amin(0).max()), float(apart.amin(1).max()))
    return worst


def latency(call: Callable[[], Any], repeats: int) -> float:
    """Median duration of a call, ms, after one warm-up call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]


def _onnx(program: torch.export.ExportedProgram, path: Path) -> Callable[..., Detections]:
    try:
        import onnxruntime  # noqa: F401 - before the graph is written, which takes a while
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ConfigError(
            f"format=onnx needs {error.name}; install detlab[export], or use format=torch_export."
        ) from error
    write_onnx(program, path)
    return in_onnxruntime(path)


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced program as an ONNX file, without the exporter's remarks."""
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = torch.onnx.export(
            program, input_names=INPUTS, output_names=OUTPUTS, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert written is not None  # dynamo=True always gives a program
    written.save(str(path))


def in_onnxruntime(path: Path) -> Callable[..., Detections]:
    """An ONNX file as a function of images and sizes (see `Exported`), on torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda *given: _detections(session.run(list(OUTPUTS), _arrays(given)))


def in_openvino(path: Path) -> Callable[..., Detections]:
    """As `in_onnxruntime`, in OpenVINO and in float32 (on a CPU with bfloat16 units its default is bfloat16)."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(*given: Tensor) -> Detections:
        found = compiled(_arrays(given))
        return _detections([found[name] for name in OUTPUTS])

    return run


def _arrays(given: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """The inputs of a graph by name; images of a batch are channels-last, which runtimes do not read."""
    return {name: np.ascontiguousarray(value.numpy()) for name, value in zip(INPUTS, given, strict=True)}


def _detections(found: Sequence[np.ndarray]) -> Detections:
    """The outputs of a graph; they are copied where the runtime keeps them for its next call."""
    return Detections(*(torch.from_numpy(np.array(values)) for values in found))
