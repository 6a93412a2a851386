"""detlab export: a trained detector as an ONNX or torch.export graph, compared with the original detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import torch

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.data.audit import MANY
from detlab.data.audit import names as listed
from detlab.data.images import MAX_PIXELS
from detlab.detectors.graph import FORMATS, TOLERANCE, disagreement, example, export, latency
from detlab.errors import ConfigError
from detlab.runs.checkpoints import find_checkpoint, read_checkpoint
from detlab.runs.loading import detector_of
from detlab.system.memory import physical_bytes
from detlab.system.printing import say
from detlab.tensors.norms import fold_norms
from detlab.tensors.structures import Batch

USAGE = "detlab export run=outputs/... format=onnx"


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="export")
@on_plain_config("export")
def main(config: dict[str, Any]) -> None:
    """Export."""
    run(config)


def run(config: dict[str, Any]) -> Path:
    """Write the graph, compare it with the detector on a noise image, print both latencies; returns the file.

    Raises:
        ConfigError: there is no checkpoint, the format is unknown, or the graph gives other results.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    checkpoint = read_checkpoint(find_checkpoint(config["run"], config["ckpt"]), config["trust"])
    detector = fold_norms(detector_of(checkpoint))
    canvas = tuple(config["canvas"] or _canvas(checkpoint.config["data"]))
    any_batch = config["batch"] == "any"
    number = 2 if any_batch else config["batch"]
    check_memory(number, canvas)
    inputs = example(number, canvas)
    format = str(config["format"])
    path = Path(config["file"] or Path(config["paths"]["run_dir"]) / f"detector{FORMATS.get(format, '')}").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    exported = export(detector, path, format, inputs, any_batch=any_batch)
    images, sizes = inputs
    batch = Batch(images, sizes, sizes, torch.zeros(len(images), dtype=torch.int64))
    with torch.inference_mode():
        expected = detector_of(checkpoint).eval().detect(batch)  # without folded batch norms
        found = exported(*inputs)
        difference = disagreement(found, expected)
        eager = latency(lambda: detector.detect(batch), config["repeats"])
        graph = latency(lambda: exported(*inputs), config["repeats"])
    names = ("object",) if detector.class_agnostic else checkpoint.class_names
    number = "any" if any_batch else len(images)
    shape = ", ".join(str(n) for n in (number, *images.shape[1:]))
    say(f"inputs      images uint8 [{shape}], sizes int64 [{number}, 2]")
    say(f"outputs     boxes, scores, labels (-1: padding): {listed(names, MANY)}")
    say(f"difference  {difference:.1e} over {int(expected.real.sum())} boxes")
    say(f"latency     eager {eager:.1f} ms, {format} {graph:.1f} ms, {torch.get_num_threads()} threads")
    say(f"file        {path}")
    check_difference(format, difference)
    return path


def check_memory(batch: int, canvas: tuple[int, int]) -> None:
    """Refuse images that are larger than any that detlab reads, or a batch that this machine's memory cannot hold.

    Raises:
        ConfigError: names the option.
    """
    height, width = canvas
    if height * width > MAX_PIXELS:
        raise ConfigError(
            f"canvas=[{height},{width}] (canvas=null takes the run's) is more than {MAX_PIXELS:,} px; use a smaller "
            f"canvas=[HEIGHT,WIDTH]."
        )
    least, memory = batch * height * width * 3 * 5, physical_bytes()  # uint8 and float32
    if memory is not None and least > memory:
        raise ConfigError(
            f"batch={batch} images of {height} x {width} px take {least / 1e9:.0f} GB, and this machine has "
            f"{memory / 1e9:.0f} GB; use a smaller batch or canvas."
        )


def check_difference(format: str, difference: float) -> None:
    """Refuse a graph that does not detect what the run does.

    Raises:
        ConfigError: names the format.
    """
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"format={format} gives other detections than the run (difference {difference:.1e}); use another format."
        )


def _canvas(data: dict[str, Any]) -> tuple[int, int]:
    """The canvas of a run: its fixed one, or a square of its size, rounded up to the divisor."""
    size = data.get("canvas") or data["size"]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    divisor = data.get("size_divisor", 32)
    return tuple(-(-int(side) // divisor) * divisor for side in sides)


if __name__ == "__main__":
    run_app(main, "export")
