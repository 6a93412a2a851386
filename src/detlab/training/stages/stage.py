"""The stages of a run: their folders, their configs, and the resulting detector."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import lightning as L  # noqa: N812 - Lightning's own convention
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import track
from torch import Tensor

from detlab.config.parts import build_part
from detlab.data import DetectionData
from detlab.detectors import Detector
from detlab.errors import ConfigError
from detlab.ranges import Count, OneOf, Positive
from detlab.runs.checkpoints import Checkpoint, find_checkpoint, read_checkpoint
from detlab.runs.first_process import first_process
from detlab.runs.loading import detector_of
from detlab.system import printing
from detlab.system.files import read_facts, read_json, write_json
from detlab.tensors.archive import save_tensors
from detlab.tensors.ranks import meet
from detlab.tensors.structures import Batch
from detlab.training.build import build, make_data
from detlab.training.callbacks.budget import FILE as BUDGET
from detlab.training.console import report
from detlab.training.feature_cache import Arrays, CachingModule, ImageCache
from detlab.training.fit import best_score, ending, fit, watched
from detlab.training.lightning_module import DetectionModule
from detlab.training.precision import resolve_precision
from detlab.training.run import Run

ADDED = ("epochs", "images_seen", "seconds")  # keys of budget.json that are summed over stages
Describe = Callable[[Detector, Batch], list[Arrays]]


class Length(NamedTuple):
    """Number of epochs and learning rate of a stage; None for the run's own value."""

    max_epochs: int | None = None
    lr: float | None = None


HandOver = Annotated[str, OneOf(("best", "last"))]


class LengthOptions(TypedDict):
    """`Length` as a node of the config."""

    max_epochs: Count | None
    lr: Positive | None


class Stages:
    """The stages of a run folder, in order.

    Args:
        config: config of the run.
        names: names of the stages, such as ("rpn", "detector").
        hand_over: "best" or "last", the checkpoint of a stage that others use.
        models: model configs of the stages, trusted when a stage's checkpoint is read.
        lengths: of the stages that train.

    Raises:
        ConfigError: the folder holds stages of an earlier run, and resume is false; or a stage sets the learning rate
            of an optimiser without the option `lr`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        names: tuple[str, ...],
        hand_over: str,
        models: Sequence[Mapping[str, Any]] = (),
        lengths: Sequence[Length] = (),
    ) -> None:
        if hand_over not in ("best", "last"):
            raise ConfigError(f"training.hand_over={hand_over} is not known; use best or last.")
        given = [length.lr for length in lengths if length.lr is not None]
        if given and "lr" not in config["optim"]:
            raise ConfigError(
                f"A stage of training sets lr={given[0]}, but the optimiser {config['optim']['_target_']} has no "
                f"option lr; set the stage's lr to null, or use optim=sgd."
            )
        self.config, self.names, self.hand_over = config, names, hand_over
        self.own = [{**config, "model": model} for model in models or (config["model"],)]
        self.run_dir = Path(config["paths"]["run_dir"])
        if (self.run_dir / "stages").is_dir() and not config["resume"] and first_process():
            raise ConfigError(
                f"{self.run_dir} holds the stages of an earlier run; resume=true goes on with them, and another "
                f"hydra.run.dir starts afresh."
            )

    def folder(self, number: int) -> Path:
        """Folder of stage `number`, counted from 1."""
        return self.run_dir / "stages" / f"{number}-{self.names[number - 1]}"

    def do(self, number: int, work: Callable[[], float | None], what: str) -> None:
        """Call `work` unless the stage is finished; `what` describes the stage in the log."""
        done = self.folder(number) / "done.json"
        heading = f"stage {number} of {len(self.names)}: {what}"
        if done.is_file():
            say(f"{heading} (done before)")
            return
        say(heading)
        self._note(state="running", stage=self.folder(number).name, reason=None)
        start = time.monotonic()
        try:
            score = work()
        except BaseException as error:
            state, reason = ending(error)
            self._note(state=state, reason=reason)
            raise
        _write(done, {"stage": self.folder(number).name, "score": score, "seconds": time.monotonic() - start})
        meet()

    @rank_zero_only
    def _note(self, **facts: Any) -> None:
        """Update status.json, if the run writes one."""
        file = self.run_dir / "status.json"
        if file.is_file():
            write_json(file, read_facts(file) | facts)

    def score(self, number: int) -> float | None:
        """The monitored metric's best value in a finished stage."""
        file = self.folder(number) / "done.json"
        done = read_json(file)
        if not isinstance(done, dict) or "score" not in done:
            raise ConfigError(f"{file} holds no stage's result; remove it, and resume=true does the stage again.")
        return done["score"]

    def train(
        self, number: int, length: Length, prepare: Callable[[Detector], None] | None = None, **changes: Any
    ) -> float | None:
        """Train a stage; `changes` replace top-level keys of its config. Returns the monitored metric's best value.

        Every stage uses the run's seed: a randomly initialised backbone is the same in each, and a resumed run equals
        an uninterrupted one.
        """
        config = self.config_of(number, length) | changes
        L.seed_everything(config["seed"], workers=True, verbose=False)
        return best_score(fit(config, prepare))

    def config_of(self, number: int, length: Length | None = None) -> dict[str, Any]:
        """The run's config with the folder, length and learning rate of a stage, and without the final test."""
        folder, length = self.folder(number), length or Length()
        config = _moved(copy.deepcopy(dict(self.config)), str(self.run_dir), str(folder))
        trainer, optim, callbacks = config["trainer"], config["optim"], config["callbacks"]
        if length.max_epochs is not None:
            trainer["max_epochs"] = min(length.max_epochs, trainer["max_epochs"])
        if trainer["check_val_every_n_epoch"]:
            trainer["check_val_every_n_epoch"] = _divisor(trainer["max_epochs"], trainer["check_val_every_n_epoch"])
        if length.lr is not None:
            optim["lr"] = length.lr
        if callbacks.get("status"):
            callbacks["status"] |= {"run_dir": str(self.run_dir), "stage": folder.name}
        for node in config["logger"].values():
            if node and "project" in node:  # W&B: one run per stage, in a common group
                node |= {"name": f"{node['name']}-{folder.name}", "group": node.get("group") or node["name"]}
        return config | {"test": False}

    def checkpoint(self, number: int, ckpt: str | None = None) -> Checkpoint:
        """The checkpoint of a finished stage; by default the one that `hand_over` names."""
        path = find_checkpoint(self.folder(number), ckpt or self.hand_over)
        return read_checkpoint(path, self.config["trust"], own=self.own)

    def finish(
        self, config: dict[str, Any], states: Mapping[str, Mapping[str, Tensor]], score: float | None
    ) -> float | None:
        """Write the final detector of the run, test it, and print the results.

        Args:
            config: config of the run, with the model of the final detector.
            states: {"last": tensors, "best": tensors} of that detector.
            score: the monitored metric's best value; returned unchanged.
        """
        run = build(config)
        with watched(run):
            for name in ("last", "best"):
                run.module.detector.load_state_dict(states[name])
                if run.trainer.is_global_zero:
                    write_checkpoint(self.run_dir / "checkpoints" / f"{name}.ckpt", run.module)
            if config["test"]:
                run.trainer.test(run.module, datamodule=run.data, verbose=False)
        if config["callbacks"].get("budget"):
            self._add_up(run)
        report(run, self.run_dir)
        return score

    @rank_zero_only
    def _add_up(self, run: Run) -> None:
        """Write the summed cost of all stages to budget.json, with batch and rate of the last stage that trains."""
        file, total = self.run_dir / BUDGET, dict.fromkeys(ADDED, 0)
        facts: dict[str, Any] = {}
        for number in range(1, len(self.names) + 1):
            folder = self.folder(number)
            spent, done = read_facts(folder / BUDGET), read_facts(folder / "done.json")
            spent["seconds"] = max(spent.get("seconds", 0.0), done.get("seconds", 0.0))  # not all stages train
            total = {key: total[key] + spent.get(key, 0) for key in ADDED}
            facts |= {key: value for key, value in spent.items() if key in ("batch", "lr")}
        facts |= total | {
            "hours": total["seconds"] * run.trainer.world_size / 3600,
            "parameters": sum(p.numel() for p in run.module.detector.parameters()),
        }
        write_json(file, read_facts(file) | facts)


def unaugmented(config: Mapping[str, Any], split: str) -> DetectionData:
    """Data whose test dataset (for split val: val dataset) holds the split's images without augmentation."""
    same = {"same_images": True} if split == "train" else {}
    return make_data({**config, "data": {**config["data"], **same}})


def fill_cache(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    data: DetectionData,
    split: str,
    cache: ImageCache,
    describe: Describe,
) -> None:
    """Run a checkpoint's detector once over each image of a split; on return every process can read the cache.

    Args:
        config: config of the stage.
        data: from `unaugmented`.
        cache: filled in place; images that it holds already are skipped.
        describe: (detector, batch) -> the arrays of each image.
    """
    module = CachingModule(
        detector=detector_of(checkpoint).eval(),
        describe=describe,
        dataset=data.dataset("val" if split == "val" else "test"),
        cache=cache,
        collate=data.collate,
        batch_size=data.eval_batch_size,
        num_workers=data.num_workers,
    )
    if module.missing:
        trainer = _predicting(config)
        trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier("cached")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically; several processes may write the same file."""
    save_tensors(path, dict(tensors))


def write_checkpoint(path: Path, module: DetectionModule) -> None:
    """Write a module's weights atomically as a checkpoint like those of training, without optimiser state."""
    content: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
    }
    module.on_save_checkpoint(content)
    save_tensors(path, content)


def progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """Iterate over items, with a progress bar on a terminal."""
    return track(items, what, transient=True, disable=not sys.stdout.isatty())


def say(text: str) -> None:
    """Print a line in rank 0."""
    rank_zero_only(printing.say)(text)


def _predicting(config: Mapping[str, Any]) -> L.Trainer:
    """The stage's trainer without loggers and checkpoints."""
    bar = config["callbacks"].get("progress")
    callbacks = [build_part(bar)] if bar else []
    options = dict(config["trainer"])
    precision = resolve_precision(str(options.pop("precision")), options["accelerator"])
    return build_part(
        options,
        callbacks=callbacks,
        logger=False,
        precision=precision,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        profiler=None,
    )


@rank_zero_only
def _write(path: Path, value: Any) -> None:
    write_json(path, value)


def _divisor(epochs: int | None, at_most: int) -> int:
    """The largest divisor of `epochs` up to `at_most`, so that an evaluation falls on the last epoch."""
    return next(n for n in range(at_most, 0, -1) if not epochs or epochs % n == 0)


def _moved(node: Any, old: str, new: str) -> Any:
    """A config whose paths inside the folder `old` are moved to `new`."""
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node[len(old) :]
    return node
