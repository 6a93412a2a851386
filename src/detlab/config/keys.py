"""Contracts of keys that no class of detlab declares: top-level keys of the commands, and options of libraries."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from detlab.ranges import (
    Count,
    Fraction,
    Images,
    Like,
    Natural,
    NonNegative,
    OneOf,
    PerImage,
    Positive,
    Range,
    Seed,
    Share,
    Side,
    Size,
)

Split = Annotated[str, OneOf(("train", "val", "test"))]
Stored = Annotated[str, OneOf(("best", "last"))]
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true", "32", "16", "bf16", "64")
Precision = Annotated[str, OneOf(PRECISIONS)] | Literal[16, 32, 64]
SHARE_OR_COUNT = Share | Count  # of batches: a share up to 1.0, or a whole number of them


class Part:
    """A node with `_target_`; its keys are checked against the class that it names."""


class Paths(TypedDict):
    """Where a command writes."""

    run_dir: str


Threads = Annotated[int, Range(1, 4096)]  # more make the OpenMP runtime end the process


class Shared(TypedDict):
    """Keys of every command."""

    trust: Sequence[str]
    threads: Threads | None
    paths: Paths


class Several(TypedDict, total=False):
    """Multi-scale training, an optional group."""

    multiscale: Part


class Train(Shared, Several):
    """detlab train; nodes with `_target_` are checked by their class."""

    model: Part
    data: Part
    augment: Part
    optim: Part
    lr_schedule: Part
    training: Part
    trainer: Part
    logger: Mapping[str, Part | None]
    callbacks: Mapping[str, Part | None]
    metrics: Mapping[str, Mapping[str, Part | None] | None]
    tta: Part
    answer: str | None
    paper: Mapping[str, str | Mapping[str, float]] | None
    measured_noise: Mapping[str, NonNegative] | None
    seed: Seed
    monitor: str | None
    init_from: str | None
    resume: bool
    test: bool
    evaluation_loss: bool
    compile: bool
    deterministic: bool | Literal["warn"]
    matmul_precision: Annotated[str, OneOf(("highest", "high", "medium"))]
    name: str


class Check(Train):
    """detlab check."""

    steps: Count
    batches: Count
    minutes: Positive | None
    batch: str | None


class Data(Train):
    """detlab data."""

    json: str | None
    pictures: Natural


class Anchors(Train):
    """detlab anchors."""

    split: Split
    most_images: Count | None


class Judging(TypedDict):
    """The trainer of detlab evaluate."""

    accelerator: Annotated[str, OneOf(("auto", "cpu", "gpu", "cuda", "mps"))]
    devices: Count | Annotated[int, Range(-1, -1)] | Annotated[Sequence[Natural], Size(1)] | Literal["auto"]
    precision: Precision | None


class OnRun(Shared):
    """Keys of every command that reads a trained run."""

    run: str
    ckpt: Stored


class Views(TypedDict, total=False):
    """Test-time augmentation, an optional group; the default is the run's own."""

    tta: Part


class Evaluate(OnRun, Views):
    """detlab evaluate; its `data` and `detect` keys are checked against the run's config."""

    split: Split
    data: Mapping[str, Any]
    detect: Mapping[str, Any]
    worst: Natural
    score_threshold: Fraction | None
    trainer: Judging


class Predict(OnRun, Views):
    """detlab predict."""

    source: str | Sequence[str]
    classes: Annotated[Sequence[str], Size(1)] | None
    score_threshold: Fraction
    save_txt: bool
    batch_size: Images
    device: str
    runtime: Annotated[str, OneOf(("torch", "onnxruntime", "openvino"))]
    precision: Annotated[str, OneOf(("fp32", "bf16"))]


class Export(OnRun):
    """detlab export."""

    format: Annotated[str, OneOf(("onnx", "torch_export"))]
    canvas: Annotated[Sequence[Side], Size(2, 2)] | None
    batch: Images | Literal["any"]
    file: str | None
    repeats: Count


class Proposals(Shared):
    """detlab proposals."""

    data: Part
    method: Annotated[str, OneOf(("grid", "selective_search", "rpn"))]
    mode: Annotated[str, OneOf(("fast", "quality"))]
    side: Side | None
    run: str | None
    ckpt: Stored
    splits: Annotated[Sequence[Split], Size(1)]
    count: PerImage
    recall: str | None
    workers: Annotated[int, Range(1, 256)] | None
    batch_size: Images
    device: str
    seed: Seed


class Trainer(TypedDict):
    """Options of lightning.Trainer whose own annotations are less strict."""

    max_epochs: Count
    max_steps: Annotated[int, Range(-1)]
    max_time: Annotated[str, Like(r"\d+:\d\d:\d\d:\d\d", "days:hours:minutes:seconds, such as 00:01:30:00")] | None
    check_val_every_n_epoch: Count | None
    gradient_clip_val: NonNegative | None
    accumulate_grad_batches: Count
    num_sanity_val_steps: Annotated[int, Range(-1)]
    log_every_n_steps: Natural
    limit_train_batches: SHARE_OR_COUNT
    limit_val_batches: SHARE_OR_COUNT
    limit_test_batches: SHARE_OR_COUNT
    accelerator: Annotated[str, OneOf(("auto", "cpu", "gpu", "cuda", "mps", "tpu"))]
    devices: Count | Annotated[int, Range(-1, -1)] | Annotated[Sequence[Natural], Size(1)] | Literal["auto"]
    num_nodes: Count
    precision: Precision
    profiler: Annotated[str, OneOf(("simple", "advanced", "pytorch"))] | Part | None
    default_root_dir: str | None
    enable_model_summary: bool
    use_distributed_sampler: bool
    sync_batchnorm: bool


class Composed(TypedDict):
    """torchvision's Compose."""

    transforms: Annotated[Sequence[Part], Size(1)]


class Flip(TypedDict):
    """torchvision's random transforms."""

    p: Fraction


class ZoomOut(Flip):
    """torchvision's RandomZoomOut."""

    fill: Annotated[Sequence[Annotated[float, Range(0, 255)]], Size(3, 3)] | Annotated[float, Range(0, 255)]
    side_range: Annotated[Sequence[Annotated[float, Range(1, 16)]], Size(2, 2)]


class Jitter(TypedDict):
    """torchvision's ColorJitter."""

    brightness: NonNegative | Annotated[Sequence[NonNegative], Size(2, 2)] | None
    contrast: NonNegative | Annotated[Sequence[NonNegative], Size(2, 2)] | None
    saturation: NonNegative | Annotated[Sequence[NonNegative], Size(2, 2)] | None
    hue: Annotated[float, Range(0, 0.5)] | None


class Watching(TypedDict):
    """Callbacks that watch a metric; null stands for the run's `monitor`."""

    monitor: str | None


class Average(TypedDict):
    """Lightning's EMAWeightAveraging."""

    decay: Fraction
    update_every_n_steps: Count


class Stopping(Watching):
    """Lightning's EarlyStopping."""

    mode: Annotated[str, OneOf(("min", "max"))]
    patience: Natural


class Distributed(TypedDict):
    """Lightning's DDPStrategy."""

    find_unused_parameters: bool
    gradient_as_bucket_view: bool
    process_group_backend: str | None
    timeout_s: Positive


def _contracts(keys: type) -> dict[str, Any]:
    return typing.get_type_hints(keys, include_extras=True)


COMMANDS: dict[str, type] = {
    "train": Train,
    "check": Check,
    "anchors": Anchors,
    "data": Data,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "proposals": Proposals,
}
TOP = {command: _contracts(keys) for command, keys in COMMANDS.items()}
NEEDED: dict[str, frozenset[str]] = {command: keys.__required_keys__ for command, keys in COMMANDS.items()}  # type: ignore[attr-defined]
EXTRA: dict[str, dict[str, Any]] = {
    "lightning.Trainer": _contracts(Trainer),
    "torchvision.transforms.v2.Compose": _contracts(Composed),
    "torchvision.transforms.v2.RandomHorizontalFlip": _contracts(Flip),
    "torchvision.transforms.v2.RandomVerticalFlip": _contracts(Flip),
    "torchvision.transforms.v2.RandomPhotometricDistort": _contracts(Flip),
    "torchvision.transforms.v2.RandomZoomOut": _contracts(ZoomOut),
    "torchvision.transforms.v2.ColorJitter": _contracts(Jitter),
    "detlab.data.ssd_transforms.PhotometricDistort": _contracts(Flip),
    "detlab.data.ssd_transforms.ZoomOut": _contracts(ZoomOut),
    "detlab.training.callbacks.RunCheckpoint": _contracts(Watching),
    "detlab.training.callbacks.EMA": _contracts(Average),
    "detlab.training.callbacks.EarlyStop": _contracts(Stopping),
    "detlab.training.processes.DDP": _contracts(Distributed),
}
