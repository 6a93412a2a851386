"""A run from its config: objects, checks, training, the final test. Hydra is only in the entry points."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from detlab.config.compose import config_hash, make_detector
from detlab.config.rules import check
from detlab.data import DetectionData, fingerprint
from detlab.detectors import Detector
from detlab.metrics.summary import summary_rows
from detlab.runs.checkpoints import find_checkpoint, initialise_from, read_checkpoint
from detlab.runs.resuming import NEW, Start, finished_score, logger_facts, start_of
from detlab.training.callbacks import CheckpointFiles, RunStatus, SameConfig, ValidationPictures
from detlab.training.lightning_module import DetectionModule
from detlab.training.loggers import flat
from detlab.training.optim import effective_lr
from detlab.training.precision import resolve_precision
from detlab.training.processes import WATCH
from detlab.training.signals import STOP, Stopped

MONITORS = {False: "val/map", True: "val/ar_300"}  # by Detector.class_agnostic


class Run(NamedTuple):
    """The objects of a run."""

    trainer: L.Trainer
    module: DetectionModule
    data: DetectionData


def train(config: dict[str, Any]) -> float | None:
    """Train and test as a plain, resolved config says, in the stages that its `training` names.

    Returns:
        The monitored metric's best value.

    Raises:
        ConfigError, DataError: before any work, where something does not fit.
    """
    check(config)
    finished, score = finished_score(config)
    if finished:
        return score
    set_up_torch(config)
    STOP.install()
    try:
        score = _part(config["training"])(config | {"config_hash": config_hash(config)})
        WATCH.expected = True  # from here on processes may end
        return score
    finally:
        STOP.remove()


def fit(config: dict[str, Any], prepare: Callable[[Detector], None] | None = None) -> Run:
    """Train a detector, with resume=true from its newest checkpoint on, and test the best if the config says so.

    Args:
        config: of the run, or of one stage of it.
        prepare: fills or freezes the new detector before training.
    """
    start = start_of(config)
    run = build(config, prepare, start)
    with watched(run):
        run.trainer.fit(run.module, datamodule=run.data, ckpt_path=start.checkpoint, weights_only=True)
        if config["test"]:
            best = _best(run.trainer)
            run.trainer.test(
                run.module,
                datamodule=run.data,
                ckpt_path=best,
                verbose=False,
                weights_only=True if best else None,
            )
    return run


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Write into status.json how the work ended, and close the loggers."""
    status = next((c for c in run.trainer.callbacks if isinstance(c, RunStatus)), None)
    state, reason = "failed", None
    try:
        yield
        state = "finished"
    except BaseException as error:
        state, reason = ending(error)
        raise
    finally:
        if status is not None:
            status.finish(state, reason, score=best_score(run))
        _close_loggers(state)


def best_score(run: Run) -> float | None:
    """The best value of the monitored metric in training."""
    score = run.trainer.checkpoint_callback.best_model_score if run.trainer.checkpoint_callback else None
    return None if score is None else float(score)


def ending(error: BaseException) -> tuple[str, str]:
    """State and reason of a run that an error ends."""
    if isinstance(error, Stopped):
        return "stopped", str(error)
    dead = WATCH.dead()  # of which the error is the consequence
    return "failed", f"{dead}; {type(error).__name__}: {error}" if dead else f"{type(error).__name__}: {error}"


def build(config: dict[str, Any], prepare: Callable[[Detector], None] | None = None, start: Start = NEW) -> Run:
    """All objects of a run, in the order in which mistakes show soonest.

    Args:
        config: of the run, or of one stage of it.
        prepare: fills or freezes the new detector before training.
        start: where training starts, for the loggers.
    """
    identity = config_hash(config)  # before null options get their values
    data = make_data(config)
    say_audit(data)
    detector = make_detector(config["model"], data.num_classes)
    config["monitor"] = config["monitor"] or MONITORS[detector.class_agnostic]
    if config["init_from"] and start.checkpoint is None:
        _initialise(detector, config, data)
    if prepare is not None:
        prepare(detector)
    module = DetectionModule(
        detector=detector,
        optim=_part(config["optim"]),
        lr_schedule=_part(config["lr_schedule"]),
        class_names=data.class_names,
        category_ids=data.category_ids,
        config=config,
        seed=config["seed"],
        monitor=config["monitor"],
        tta=_part(config["tta"]),
        divisor=config["data"]["size_divisor"],
        compiled=config["compile"],
    )
    callbacks = [_part(node) for node in _with_monitor(config["callbacks"], config["monitor"]) if node]
    for callback in callbacks:
        if isinstance(callback, RunStatus):
            callback.note(config_hash=config.get("config_hash") or identity, data_fingerprint=fingerprint(data))
    loggers = [_part(node, **logger_facts(node, start)) for node in config["logger"].values() if node]
    precision = resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"])
    trainer = _part(
        config["trainer"],
        callbacks=[*callbacks, SameConfig(identity, config["paths"]["run_dir"])],
        plugins=[CheckpointFiles()],
        logger=loggers or False,
        precision=precision,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    for logger in trainer.loggers:
        logger.log_hyperparams(flat(config))
    say_plan(config, identity, trainer, module, data)
    return Run(trainer, module, data)


def make_data(config: Mapping[str, Any]) -> DetectionData:
    """The data set of a config, audited."""
    augment = _part(config["augment"])
    family = _class_of(config["model"]["_target_"])
    facts = {"resize_default": family.resize, "needs_proposals": family.needs_proposals}
    data = _part(config["data"], augment=augment, seed=config["seed"], **facts)
    data.prepare_data()
    data.setup()
    return data


def report(run: Run, run_dir: Path) -> None:
    """Print the final table, the run folder and the picture."""
    results = run.module.results.get("test") or run.module.results.get("val")
    if not run.trainer.is_global_zero or results is None:
        return
    split = "test" if "test" in run.module.results else "val"
    print_results(results, f"{split} split")
    say = Console().print
    say(f"run folder  {run_dir}", soft_wrap=True)
    pictures = next((c for c in run.trainer.callbacks if isinstance(c, ValidationPictures)), None)
    if pictures is not None and pictures.latest is not None:
        say(f"picture     {pictures.latest}", soft_wrap=True)


def print_results(results: Mapping[str, float], title: str) -> None:
    """A metric's result as a table."""
    table = Table(title=title)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in summary_rows(results):
        table.add_row(name, value)
    Console().print(table)


@rank_zero_only
def say_audit(data: DetectionData) -> None:
    """Print what the audit found."""
    console = Console()
    counts = ", ".join(f"{s} {len(data.records(s))}" for s in ("train", "val", "test") if data.has(s))
    console.print(f"data        {counts} images; {data.num_classes} classes: {', '.join(data.class_names)}")
    for note in data.notes:
        console.print(f"note        {note}", soft_wrap=True, highlight=False)
    rows = data.report.as_rows()
    if rows:
        table = Table("split", "dirt", "count", "what is done", "examples", title="data audit")
        for row in rows:
            table.add_row(*row)
        console.print(table)


@rank_zero_only
def say_plan(
    config: Mapping[str, Any], identity: str, trainer: L.Trainer, module: DetectionModule, data: DetectionData
) -> None:
    """Print what hides in other frameworks: parameters trained, total batch, learning rate, input size."""
    table = Table("stage", "trainable", "parameters", title="parameters")
    rows = [(f"backbone {name}", a, b) for name, a, b in module.detector.backbone.trainable_report()]
    for name, child in module.detector.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in child.parameters()]
        if name != "backbone" and sizes:
            rows.append((name, sum(n for n, grad in sizes if grad), sum(n for n, _ in sizes)))
    for name, trainable, total in rows:
        table.add_row(name, f"{trainable:,}", f"{total:,}")
    table.add_row("all", *(f"{sum(row[i] for row in rows):,}" for i in (1, 2)), style="bold")
    console = Console()
    console.print(table)
    backbone = module.detector.backbone
    total = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    optim = config["optim"]
    rate = effective_lr(optim["lr"], total, optim["base_batch_size"], optim["lr_scaling"])
    accumulated = f" x {trainer.accumulate_grad_batches} steps" if trainer.accumulate_grad_batches > 1 else ""
    lines = {
        "backbone": f"weights {backbone.weights}, norm {backbone.norm}, frozen stages {backbone.frozen_stages}",
        **({"neck": module.detector.neck.note} if module.detector.neck.note else {}),
        "input": f"{data.resize.mode} {config['data']['size']}, at most {config['data'].get('max_size')} px",
        "batch": f"{total} = {data.batch_size} x {trainer.world_size} processes{accumulated}",
        "optimiser": (
            f"{_class_name(optim['_target_'])}, learning rate {rate:.3g} ({optim['lr']} at {optim['base_batch_size']} "
            f"images, {optim['lr_scaling']} scaling)"
        ),
        "precision": f"{trainer.precision} on {trainer.strategy.root_device}",
        "run": f"{config['paths']['run_dir']} (config {identity})",
    }
    for name, text in lines.items():
        console.print(f"{name:11} {text}", soft_wrap=True, highlight=False)


def _part(node: Mapping[str, Any], **facts: Any) -> Any:
    return instantiate(dict(node), _convert_="all", **facts)


def _with_monitor(callbacks: Mapping[str, Any], monitor: str) -> list[dict[str, Any]]:
    """Callback configs; those that watch a metric watch the run's one."""
    return [{**node, "monitor": monitor} if node and "monitor" in node else node for node in callbacks.values()]


NOISE = (  # of libraries, about things that this project decides or cannot change
    "isinstance\\(treespec, LeafSpec\\)",
    "Experiment logs directory",
    "does not have many workers",
    "The number of training batches",
    "Trying to infer the `batch_size`",
    "Found .* in eval mode at the start of training",  # frozen layers are meant to be
    "You are using a custom batch sampler",
)


def set_up_torch(config: Mapping[str, Any]) -> None:
    """Threads, precision of products and seeds, as the config says; libraries' tips are left out."""
    quieten()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    L.seed_everything(config["seed"], workers=True, verbose=False)


def quieten() -> None:
    """Leave out what libraries say about things that this project decides or cannot change."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log tells something of this run."""
    text = record.getMessage()
    return not any(part in text for part in ("Tip:", "TPU available", "Loading `train_dataloader`", "GPU available"))


def _initialise(detector: Detector, config: Mapping[str, Any], data: DetectionData) -> None:
    checkpoint = read_checkpoint(find_checkpoint(config["init_from"]), config["trust"])
    skipped = initialise_from(detector, checkpoint, data.class_names)
    shown = f"; left random: {', '.join(skipped[:6])}{' ...' if len(skipped) > 6 else ''}" if skipped else ""
    rank_zero_only(Console().print)(f"init_from   {checkpoint.path}{shown}", soft_wrap=True)


def _best(trainer: L.Trainer) -> str | None:
    callback = trainer.checkpoint_callback
    return (callback.best_model_path or None) if callback is not None else None


def _close_loggers(state: str) -> None:
    """Finish a W&B run with the state it deserves; the module is there only if it was used."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=0 if state == "finished" else 1)


def _class_of(target: str) -> type:
    return get_class(target)


def _class_name(target: str) -> str:
    return target.rsplit(".", 1)[-1]
