"""Build the objects of a run from its config."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.utilities import rank_zero_only

from detlab.config.compose import config_hash, make_detector
from detlab.config.parts import build_part, class_of
from detlab.data import DetectionData, fingerprint
from detlab.detectors import Detector
from detlab.errors import ConfigError, DataError
from detlab.metrics.anchor_coverage import Placement
from detlab.metrics.collected import Measure
from detlab.model.proposals import RPN
from detlab.runs.checkpoints import find_checkpoint, initialise_from, read_checkpoint
from detlab.runs.resuming import NEW, Start, logger_facts
from detlab.system.memory import physical_bytes
from detlab.system.printing import say
from detlab.tensors.boxes import within
from detlab.training.callbacks import CheckpointFiles, RunStatus, SameConfig
from detlab.training.console import say_audit, say_plan
from detlab.training.lightning_module import DetectionModule
from detlab.training.loggers import flat
from detlab.training.precision import resolve_precision
from detlab.training.processes import check_alone
from detlab.training.run import Run
from detlab.training.time_limit import TimeLimit

MONITORS = {False: "val/map", True: "val/ar_300"}  # by Detector.class_agnostic


def build(config: dict[str, Any], prepare: Callable[[Detector], None] | None = None, start: Start = NEW) -> Run:
    """Build all objects of a run; those that reveal mistakes soonest come first.

    Args:
        config: config of the run, or of one of its stages.
        prepare: called with the new detector before training, to load or freeze weights.
        start: where training starts from, for the loggers.
    """
    if isinstance(config["init_from"], str) and not config["init_from"].strip():
        raise ConfigError("init_from= names no checkpoint; give a file or a run's folder, or init_from=null for none.")
    identity = config_hash(config)  # computed before null options are filled in
    most = config["trainer"].get("max_time")
    limit = [] if most is None else [TimeLimit(most)]
    data = make_data(config)
    say_audit(data)
    check_memory(data)
    given = fingerprint(data)
    check_same_data(start, data.class_names, given)
    detector = make_detector(config["model"], data.num_classes)
    config["monitor"] = config["monitor"] or MONITORS[detector.class_agnostic]
    check_boxes(data, config["monitor"])
    if not config.get("multiscale"):  # which draws other sizes
        check_anchors(detector, data)
    if config["init_from"] and start.checkpoint is None:
        _initialise(detector, config, data)
    if prepare is not None:
        prepare(detector)
    module = DetectionModule(
        detector=detector,
        optim=build_part(config["optim"]),
        lr_schedule=build_part(config["lr_schedule"]),
        class_names=data.class_names,
        category_ids=data.category_ids,
        config=config,
        measures=measures_of(config["metrics"], detector, data),
        seed=config["seed"],
        monitor=config["monitor"],
        tta=build_part(config["tta"]),
        multiscale=build_part(config["multiscale"]) if config.get("multiscale") else None,
        divisor=data.collate.divisor,
        compiled=config["compile"],
        evaluation_loss=config.get("evaluation_loss", True),  # runs of before have no such key
    )
    callbacks = [build_part(node) for node in _with_monitor(config["callbacks"], config["monitor"]) if node]
    for callback in callbacks:
        if isinstance(callback, RunStatus):
            callback.note(
                config_hash=config.get("config_hash") or identity,
                data_fingerprint=given,
                weights_fingerprint=weights_fingerprint(config["model"]),
            )
    loggers = [build_part(node, **logger_facts(node, start)) for node in config["logger"].values() if node]
    if not loggers:  # Lightning's refuses to run without one
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    precision = resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"])
    trainer = build_part(
        config["trainer"],
        callbacks=[*callbacks, *limit, SameConfig(identity, config["paths"]["run_dir"])],
        max_time=None,  # `limit` ends training
        plugins=[CheckpointFiles()],
        logger=loggers or False,
        precision=precision,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    check_alone(trainer.world_size)
    for logger in trainer.loggers:
        logger.log_hyperparams(flat(config))
    say_plan(config, identity, trainer, module, data)
    return Run(trainer, module, data)


def weights_fingerprint(model: Mapping[str, Any]) -> str | None:
    """Hash, twelve hex digits, of the file that the backbone's weights came from; None if they come from no file."""
    weights = (model.get("backbone") or {}).get("weights")
    path = Path(weights).expanduser() if isinstance(weights, str) else None
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def check_same_data(start: Start, class_names: Sequence[str], given: str) -> None:
    """Refuse to go on with other classes, whose rows in the weights would change their meaning; name other data.

    Args:
        start: where training goes on from; nothing is checked at the first step.
        class_names: of the data set.
        given: its fingerprint.

    Raises:
        ConfigError: the checkpoint has other classes, or in another order.
    """
    if start.checkpoint is None:
        return
    if start.class_names != tuple(class_names):
        pairs = zip_longest(start.class_names, class_names, fillvalue="none")
        number, (then, now) = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        raise ConfigError(
            f"resume=true would go on with {start.checkpoint} on data with other classes (class {number} is {now}, not "
            f"{then}); give the data set of before, or start another run with init_from={start.checkpoint}, which "
            f"matches classes by name."
        )
    if start.data not in (None, given):
        rank_zero_only(say)(
            f"resume      the data set is not that of before (its images or boxes differ): metrics from before and "
            f"after step {start.keep_steps} do not compare"
        )


def check_boxes(data: DetectionData, monitor: str) -> None:
    """Refuse data without boxes to learn from, or without boxes to compute the monitored metric.

    Raises:
        DataError: train or val has no usable box; the message names the most frequent reason from the data audit.
    """
    if not data.counted("train"):
        raise DataError(
            f"No image of the train split has a box to learn from{data.report.largest_loss('train')}. Check the "
            f"annotations of train; detlab data shows what was read."
        )
    if monitor.startswith("val/") and "loss" not in monitor and not data.counted("val"):
        raise DataError(
            f"No image of the val split has a box that counts, so monitor={monitor} is not defined"
            f"{data.report.largest_loss('val')}. Check the annotations of val, or let a share of train be val (without "
            f"a val split of its own, data.val_fraction=0.1)."
        )


def check_anchors(detector: Detector, data: DetectionData) -> None:
    """Refuse an RPN that has no anchor to learn from.

    Raises:
        ConfigError: anchors across the border are dropped, and all are.
    """
    rpn = next((m for m in detector.modules() if isinstance(m, RPN)), None)
    if rpn is None or not rpn.drop_crossing:
        return
    place = Placement(data.resize.target, data.collate.divisor, data.collate.canvas)
    sizes = sorted(
        {place.target(shape) for shape in data.records("train").shapes()}, key=lambda size: -size[0] * size[1]
    )
    for size in sizes:  # most often the first will do
        anchors = torch.cat(rpn.anchors.per_level(rpn.levels, place.canvas_of(size)))
        if within(anchors[None], torch.tensor([size])).any():
            return
    height, width = sizes[0]
    raise ConfigError(
        f"drop_crossing=true of the RPN leaves no anchor to learn from: no training image, the largest of {height} x "
        f"{width} px as the detector sees it, has an anchor inside; use a larger data.size, smaller "
        f"model.anchors.sizes, or drop_crossing=false (model.drop_crossing, of a Faster R-CNN "
        f"model.proposals.drop_crossing)."
    )


def check_memory(data: DetectionData, splits: Collection[str] = ("train", "val", "test")) -> None:
    """Refuse batches whose images alone do not fit into this machine's memory.

    Raises:
        DataError: names the option and the amounts.
    """
    memory = physical_bytes()
    bytes_per_pixel = 3 * (1 if torch.cuda.is_available() else 1 + 4)  # uint8, and the float32 of a CPU
    for split in splits:
        records = data.records(split) if data.has(split) else ()
        option = "data.batch_size" if split == "train" else "data.eval_batch_size"
        batch = min(data.batch_size if split == "train" else data.eval_batch_size, len(records))
        if memory is None or not batch:
            continue
        sizes = {data.collate.canvas or data.resize.target(shape) for shape in data.records(split).shapes()}
        height, width = min(sizes, key=math.prod)
        least = batch * height * width * bytes_per_pixel
        if least > memory:
            raise DataError(
                f"{option} makes batches of {batch} images of at least {height} x {width} px, {least / 1e9:.0f} GB, "
                f"and this machine has {memory / 1e9:.0f} GB; use a smaller {option}, data.size or data.canvas."
            )


def make_data(config: Mapping[str, Any], required: Collection[str] | None = None) -> DetectionData:
    """The data set of a config, audited.

    Args:
        required: splits that must exist; None for the splits that training needs.

    Raises:
        DataError: the data cannot be read, or a split is missing.
    """
    augment = build_part(config["augment"])
    target = config["model"]["_target_"]
    family = class_of(target)
    if not issubclass(family, Detector):
        raise ConfigError(f"model._target_={target} is no family; name a subclass of detlab.Detector.")
    facts = {"resize_default": family.resize, "needs_proposals": family.box_source == "proposals"}
    data = build_part(config["data"], augment=augment, seed=config["seed"], **facts)
    data.required = data.required if required is None else required
    data.prepare_data()
    data.setup()
    return data


def measures_of(metrics: Mapping[str, Any], detector: Detector, data: DetectionData) -> list[Measure]:
    """The metrics of a detector on this data, built from the config's `metrics` node."""
    nodes = metrics["proposals" if detector.class_agnostic else "classes"]
    made = [build_part(node)(data) for node in nodes.values() if node]
    return [measure for measure in made if measure is not None]


def _with_monitor(callbacks: Mapping[str, Any], monitor: str) -> list[dict[str, Any]]:
    """Callback configs; `monitor` of each callback that has this option is set to the run's metric."""
    return [{**node, "monitor": monitor} if node and "monitor" in node else node for node in callbacks.values()]


def _initialise(detector: Detector, config: Mapping[str, Any], data: DetectionData) -> None:
    checkpoint = read_checkpoint(find_checkpoint(config["init_from"]), config["trust"])
    skipped = initialise_from(detector, checkpoint, data.class_names)
    shown = f"; left random: {', '.join(skipped[:6])}{' ...' if len(skipped) > 6 else ''}" if skipped else ""
    rank_zero_only(say)(f"init_from   {checkpoint.path}{shown}")
